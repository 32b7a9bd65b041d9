//! Tests share the machine; those that measure time get it alone. File locks, so that it holds
//! across processes too (`cargo nextest` runs one per test).

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::sync::{Arc, Weak};

use nix::fcntl::{Flock, FlockArg};

/// A share of the machine, or all of it; given back on drop.
#[derive(Debug)]
pub struct MachineLock {
    _lock: Flock<File>,
    alone: bool,
}

thread_local! {
    /// A test that starts a second service keeps the lock it has.
    static HELD: RefCell<Weak<MachineLock>> = const { RefCell::new(Weak::new()) };
}

/// Waits for the machine: among others, or alone.
pub fn take(alone: bool) -> Arc<MachineLock> {
    if let Some(held) = HELD.with_borrow(Weak::upgrade) {
        assert!(
            held.alone || !alone,
            "ask for the machine alone before the first start"
        );
        return held;
    }
    // Who waits to be alone holds the turnstile, so nobody overtakes it.
    let turnstile = lock("turnstile", FlockArg::LockExclusive);
    let kind = if alone {
        FlockArg::LockExclusive
    } else {
        FlockArg::LockShared
    };
    let machine = Arc::new(MachineLock {
        _lock: lock("machine", kind),
        alone,
    });
    drop(turnstile);
    HELD.set(Arc::downgrade(&machine));
    machine
}

/// This thread belongs to what `machine` was taken for.
pub fn join(machine: &Arc<MachineLock>) {
    HELD.set(Arc::downgrade(machine));
}

fn lock(name: &str, kind: FlockArg) -> Flock<File> {
    let user = nix::unistd::Uid::current();
    let path = std::env::temp_dir().join(format!("orcd-tests-{user}-{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    Flock::lock(file, kind).map_err(|(_, error)| error).unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_that_join_start_beside_each_other() {
        let machine = take(true);
        let others = [(); 2].map(|()| {
            let machine = Arc::clone(&machine);
            std::thread::spawn(move || {
                join(&machine);
                take(true)
            })
        });
        for other in others {
            assert!(Arc::ptr_eq(&machine, &other.join().unwrap()));
        }
    }

    #[test]
    fn alone_waits_for_the_others_and_a_second_start_waits_for_nobody() {
        let first = take(false);
        let again = take(false);
        assert!(Arc::ptr_eq(&first, &again));
        let (send, receive) = mpsc::channel();
        let other = std::thread::spawn(move || {
            let machine = take(true);
            send.send(()).unwrap();
            drop(machine);
        });
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
        drop(take(false));
        drop((first, again));
        receive.recv_timeout(Duration::from_secs(60)).unwrap();
        other.join().unwrap();
    }
}
