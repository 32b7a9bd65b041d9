//! What the engine thread hears between two steps.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::engine_thread::Command;

/// How long the next of the announced jobs is waited for: the longest takes some milliseconds to come, and where one does
/// not come, the others have waited no longer than anybody notices.
const PATIENCE: Duration = Duration::from_millis(20);

/// The commands that have come. Behind the one to serve, the jobs that it announces are waited for: together they are sooner
/// begun, and sooner at their next token, than some in a step before the others.
#[derive(Debug)]
pub struct Heard<'a> {
    first: Option<Command>,
    commands: &'a Receiver<Command>,
    /// Jobs that are to come.
    awaited: u32,
    patience: Duration,
}

impl<'a> Heard<'a> {
    /// `first`, which somebody has waited for, and what comes behind it.
    #[must_use]
    pub fn new(first: Option<Command>, commands: &'a Receiver<Command>) -> Self {
        Self {
            first,
            commands,
            awaited: 0,
            patience: PATIENCE,
        }
    }
}

impl Iterator for Heard<'_> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let command = match self.first.take() {
            Some(first) => Some(first),
            None if self.awaited > 0 => self.commands.recv_timeout(self.patience).ok(),
            None => self.commands.try_recv().ok(),
        };
        self.awaited = match &command {
            Some(Command::Serve(serve)) => serve.replays,
            Some(Command::Submit(_)) => self.awaited.saturating_sub(1),
            Some(_) => self.awaited,
            None => 0,
        };
        command
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use orcd_shared::job::JobKey;
    use orcd_shared::protocol::message::Serve;

    use super::*;

    fn submit(key: u64) -> Command {
        use orcd_shared::job::{JobOptions, JobSpec};
        use orcd_shared::sampling::SamplingParams;
        Command::Submit(Box::new(JobSpec {
            key: JobKey(key),
            prompt: vec![1],
            emitted: Vec::new(),
            max_tokens: 1,
            sampling: SamplingParams::GREEDY,
            options: JobOptions::default(),
        }))
    }

    fn serve(replays: u32) -> Command {
        Command::Serve(Serve {
            epoch: 1,
            keep: true,
            settled: true,
            replays,
        })
    }

    fn names(heard: Heard<'_>) -> Vec<String> {
        let name = |command| match command {
            Command::Submit(job) => job.key.0.to_string(),
            Command::Serve(_) => "serve".into(),
            other => format!("{other:?}"),
        };
        heard.map(name).collect()
    }

    #[test]
    fn announced_jobs_are_waited_for() {
        let (sender, commands) = channel();
        let later = std::thread::spawn(move || {
            for key in 0..3 {
                std::thread::sleep(Duration::from_millis(2));
                sender.send(submit(key)).unwrap();
            }
            sender
        });
        let heard = Heard {
            patience: Duration::from_secs(60),
            ..Heard::new(Some(serve(3)), &commands)
        };
        assert_eq!(names(heard), ["serve", "0", "1", "2"]);
        drop(later.join().unwrap());
    }

    #[test]
    fn what_was_not_announced_is_heard_if_it_is_there() {
        let (sender, commands) = channel();
        sender.send(serve(1)).unwrap();
        sender.send(Command::Cancel(JobKey(9))).unwrap();
        sender.send(submit(1)).unwrap();
        sender.send(submit(2)).unwrap();
        let heard = names(Heard::new(None, &commands));
        assert_eq!(
            (&heard[..1], &heard[2..]),
            (&["serve".into()][..], &["1".into(), "2".into()][..])
        );
        assert!(names(Heard::new(None, &commands)).is_empty());
    }

    #[test]
    fn one_that_does_not_come_is_not_waited_for_twice() {
        let (sender, commands) = channel();
        sender.send(serve(5)).unwrap();
        sender.send(submit(1)).unwrap();
        let mut heard = Heard::new(None, &commands);
        assert_eq!(heard.by_ref().count(), 2);
        assert_eq!(heard.awaited, 0);
    }
}
