//! The thread that compiles. The engine goes on with others meanwhile, and with the prompts of those that wait.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::mpsc::{self, Receiver, Sender};

use orcd_shared::constraint::Constraint;
use orcd_shared::job::JobKey;

use super::{Compiler, Matcher, STACK_BYTES, Vocabulary};

/// Compiled constraints that are kept for further jobs, and bytes of their texts, which say as much of their size as
/// anything that is known of it.
const MAX_KEPT: usize = 16;
const MAX_KEPT_BYTES: usize = 1 << 20;

/// A matcher that is wanted.
#[derive(Debug)]
pub struct Order {
    /// For whom.
    pub key: JobKey,
    /// Of what.
    pub constraint: Constraint,
    /// Tokens that the output has already.
    pub tokens: Vec<u32>,
    /// Whoever wants it holds on to this: else it is not made.
    pub wanted: Weak<()>,
}

/// What became of an order: the matcher, or why there is none.
pub type Compiled = Result<Box<Matcher>, String>;

/// Takes orders.
#[derive(Debug, Clone)]
pub struct Grammars {
    orders: Sender<Order>,
}

impl Grammars {
    /// Starts the thread, which gives `done` what became of each order. It prepares the vocabulary with the first one.
    /// Without a vocabulary every order fails, for the reason that there is none.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        vocabulary: impl FnOnce() -> Result<Vocabulary, String> + Send + 'static,
        done: impl FnMut(JobKey, Compiled) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("constraints".into())
            .stack_size(STACK_BYTES);
        thread.spawn(move || serve(vocabulary, &inbox, done))?;
        Ok(Self { orders })
    }

    /// Wants a matcher.
    pub fn order(&self, order: Order) {
        // The thread ends with the process.
        let _ = self.orders.send(order);
    }
}

fn serve(
    vocabulary: impl FnOnce() -> Result<Vocabulary, String>,
    inbox: &Receiver<Order>,
    mut done: impl FnMut(JobKey, Compiled),
) {
    let mut vocabulary = Some(vocabulary);
    let mut workshop = None;
    for order in inbox {
        if order.wanted.strong_count() == 0 {
            continue; // its job is gone
        }
        // Once, with the first order.
        if let Some(vocabulary) = vocabulary.take() {
            workshop = Some(vocabulary().and_then(|v| Workshop::new(&v)));
        }
        let compiled = match &mut workshop {
            // What fails in it is the order's: others wait for theirs.
            Some(Ok(workshop)) => catch_unwind(AssertUnwindSafe(|| workshop.make(&order)))
                .unwrap_or_else(|_| Err("it can't be compiled".to_owned())),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("there is no vocabulary".to_owned()),
        };
        done(order.key, compiled);
    }
}

/// A compiler, and what it made lately.
struct Workshop {
    compiler: Compiler,
    /// The latest last.
    kept: VecDeque<(Constraint, Matcher)>,
}

impl Workshop {
    fn new(vocabulary: &Vocabulary) -> Result<Self, String> {
        Ok(Self {
            compiler: Compiler::new(vocabulary)?,
            kept: VecDeque::new(),
        })
    }

    fn make(&mut self, order: &Order) -> Compiled {
        let mut matcher = self.compiled(&order.constraint)?;
        matcher.replay(&order.tokens)?;
        Ok(Box::new(matcher))
    }

    /// The matcher of an output without tokens.
    fn compiled(&mut self, constraint: &Constraint) -> Result<Matcher, String> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == constraint)
            && let Some(found) = self.kept.remove(at)
        {
            let matcher = found.1.clone();
            self.kept.push_back(found);
            return Ok(matcher);
        }
        let matcher = self.compiler.compile(constraint)?;
        self.kept.push_back((constraint.clone(), matcher.clone()));
        let bytes = |kept: &VecDeque<(Constraint, Matcher)>| -> usize {
            kept.iter().map(|(c, _)| c.text().len()).sum()
        };
        while self.kept.len() > MAX_KEPT || bytes(&self.kept) > MAX_KEPT_BYTES {
            self.kept.pop_front();
        }
        Ok(matcher)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_nobody_wants_any_more_is_not_made() {
        let (sender, made) = mpsc::channel();
        let vocabulary = || Ok(Vocabulary::of_bytes());
        let grammars = Grammars::start(vocabulary, move |key, compiled: Compiled| {
            sender.send((key, compiled.is_ok())).unwrap();
        });
        let grammars = grammars.unwrap();
        let job = Arc::new(());
        let order = |key, wanted| Order {
            key: JobKey(key),
            constraint: Constraint::Regex("a".to_owned()),
            tokens: Vec::new(),
            wanted,
        };
        grammars.order(order(1, Weak::new()));
        grammars.order(order(2, Arc::downgrade(&job)));
        drop(grammars);
        assert_eq!(made.iter().collect::<Vec<_>>(), [(JobKey(2), true)]);
    }
}
