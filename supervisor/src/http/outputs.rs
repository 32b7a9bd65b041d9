//! The events of all outputs of one request, as they come.

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, unfold};

use super::frames::Unfinished;
use super::generate::Output;
use crate::jobs::{JobEvent, JobStream};

/// Merges the streams of a request's jobs. Dropped, it leaves all of them.
pub(super) struct Outputs {
    merged: SelectAll<BoxStream<'static, Arrival>>,
}

/// Which output, and its next event.
type Arrival = (usize, Result<JobEvent, Unfinished>);

impl Outputs {
    pub(super) fn new(outputs: Vec<Output>) -> Self {
        let streams = outputs.into_iter().enumerate();
        let merged = streams.map(|(index, output)| events(index, output.stream).boxed());
        Self {
            merged: merged.collect(),
        }
    }

    /// The next event of any output; `None` after the last of all. An error if a stream was given up before its
    /// end.
    pub(super) async fn next(&mut self) -> Option<Arrival> {
        self.merged.next().await
    }
}

fn events(index: usize, stream: JobStream) -> impl futures_util::Stream<Item = Arrival> + Send {
    unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        match stream.events.recv().await {
            Some(numbered) if numbered.event.is_terminal() => {
                Some(((index, Ok(numbered.event)), None))
            }
            Some(numbered) => Some(((index, Ok(numbered.event)), Some(stream))),
            None => Some(((index, Err(Unfinished)), None)),
        }
    })
}
