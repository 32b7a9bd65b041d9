//! The events of all outputs of one request, as they come.

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, unfold};

use super::frames::Unfinished;
use super::generate::Output;
use crate::jobs::{JobEvent, JobStream, Numbered};

/// Merges the streams of a request's jobs. Dropped, it leaves all of them.
pub(super) struct Outputs {
    merged: SelectAll<BoxStream<'static, Arrival>>,
}

/// The next event of an output.
pub(super) struct Arrival {
    /// Which output.
    pub(super) index: usize,
    /// An error if its stream was given up before its end.
    pub(super) event: Result<JobEvent, Unfinished>,
    /// The client has it already, of another service.
    pub(super) is_known: bool,
}

impl Outputs {
    pub(super) fn new(outputs: Vec<Output>) -> Self {
        let streams = outputs.into_iter().enumerate();
        let merged = streams.map(|(index, output)| events(index, output).boxed());
        Self {
            merged: merged.collect(),
        }
    }

    /// The next event of any output; `None` after the last of all.
    pub(super) async fn next(&mut self) -> Option<Arrival> {
        self.merged.next().await
    }
}

fn events(index: usize, output: Output) -> impl futures_util::Stream<Item = Arrival> + Send {
    let received = output.received;
    unfold(Some(output.stream), move |stream| async move {
        let mut stream: JobStream = stream?;
        let Some(Numbered { id, event }) = stream.events.recv().await else {
            let event = Err(Unfinished);
            let is_known = false;
            return Some((
                Arrival {
                    index,
                    event,
                    is_known,
                },
                None,
            ));
        };
        let is_over = event.is_terminal();
        let arrival = Arrival {
            index,
            event: Ok(event),
            is_known: !is_over && received.is_some_and(|tokens| id <= tokens),
        };
        Some((arrival, (!is_over).then_some(stream)))
    })
}
