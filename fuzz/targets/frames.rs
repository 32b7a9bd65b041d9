//! Frames of the local socket from a hostile peer, as both sides read them: arbitrary bytes in
//! chunks of any size. They must be refused or read, and what is read must survive being written.

use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{ToSupervisor, ToWorker};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads chunk by chunk; each message as it is written again.
fn read<M: Serialize + DeserializeOwned>(bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    let mut arrived = Vec::new();
    for chunk in bytes.chunks(chunk) {
        arrived.extend_from_slice(chunk);
        loop {
            match frame::decode::<M>(&arrived) {
                Ok(Some((message, taken))) => {
                    assert!(taken <= arrived.len());
                    messages.push(written(&message));
                    arrived.drain(..taken);
                }
                Ok(None) => break,
                Err(error) => {
                    // For people, from the peer's own bytes.
                    let _ = error.to_string();
                    return (messages, true);
                }
            }
        }
    }
    (messages, false)
}

/// The message's bytes, which must read as the same message.
fn written<M: Serialize + DeserializeOwned>(message: &M) -> Vec<u8> {
    let mut once = Vec::new();
    frame::encode(message, &mut once).expect("what was read can be written");
    let (again, taken) = frame::decode::<M>(&once)
        .expect("what was written can be read")
        .expect("all of it is there");
    assert_eq!(taken, once.len());
    let mut twice = Vec::new();
    frame::encode(&again, &mut twice).expect("as before");
    assert_eq!(once, twice);
    once
}

/// Reads all but the first byte in chunks whose size that byte says.
pub fn run(bytes: &[u8]) {
    let Some((&chunk, bytes)) = bytes.split_first() else {
        return;
    };
    let chunk = usize::from(chunk) + 1;
    let whole = bytes.len().max(1);
    assert_eq!(
        read::<ToWorker>(bytes, chunk),
        read::<ToWorker>(bytes, whole)
    );
    assert_eq!(
        read::<ToSupervisor>(bytes, chunk),
        read::<ToSupervisor>(bytes, whole)
    );
}
