//! A reasoning block at the beginning of an answer.

use super::sink::Sink;
use super::tag::Tag;
use super::{Calls, MAX_HELD, Reasoning, ThinkTags};

/// Tells the reasoning block from what follows it.
#[derive(Clone, Debug)]
pub(super) struct Think {
    /// None if the model does not reason.
    tags: Option<ThinkTags>,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing but this white space has come, so a block may begin.
    Start(String),
    Reasoning {
        /// Whether only white space has come, which is dropped.
        blank: bool,
    },
    /// Tags have no meaning any more.
    Content,
}

impl Think {
    /// The prompt may have opened the block, or closed it, so that only white space is dropped.
    pub(super) fn new(reasoning: Reasoning, prompt_tail: &str, sink: &mut Sink) -> Self {
        let Reasoning::Think(tags) = reasoning else {
            return Self {
                tags: None,
                state: State::Content,
            };
        };
        let prompt = prompt_tail.trim_end();
        if prompt.ends_with(tags.close().name()) {
            sink.skip_space();
        }
        Self {
            tags: Some(tags),
            state: if prompt.ends_with(tags.open().name()) {
                State::Reasoning { blank: true }
            } else {
                State::Start(String::new())
            },
        }
    }

    pub(super) fn text(&mut self, text: &str, calls: &mut Calls, sink: &mut Sink) {
        match &mut self.state {
            State::Start(space) if text.trim_start().is_empty() => {
                space.push_str(text);
                if space.len() > MAX_HELD {
                    self.begin_content(calls, sink);
                }
            }
            State::Start(_) => {
                self.begin_content(calls, sink);
                calls.text(text, sink);
            }
            State::Reasoning { blank } => {
                let text = if *blank { text.trim_start() } else { text };
                *blank = *blank && text.is_empty();
                sink.reasoning(text);
            }
            State::Content => calls.text(text, sink),
        }
    }

    pub(super) fn tag(&mut self, tag: Tag, calls: &mut Calls, sink: &mut Sink) {
        let is = |of: fn(ThinkTags) -> Tag| self.tags.is_some_and(|tags| of(tags) == tag);
        match &self.state {
            State::Start(_) if is(ThinkTags::open) => {
                self.state = State::Reasoning { blank: true };
            }
            State::Start(_) => {
                self.begin_content(calls, sink);
                calls.tag(tag, sink);
            }
            State::Reasoning { .. } if is(ThinkTags::close) => {
                self.state = State::Content;
                sink.skip_space();
            }
            State::Reasoning { .. } => self.text(tag.name(), calls, sink),
            State::Content => calls.tag(tag, sink),
        }
    }

    pub(super) fn finish(&mut self, calls: &mut Calls, sink: &mut Sink) {
        self.begin_content(calls, sink);
    }

    /// The answer has no reasoning block, so white space at its beginning is content.
    fn begin_content(&mut self, calls: &mut Calls, sink: &mut Sink) {
        if let State::Start(space) = std::mem::replace(&mut self.state, State::Content) {
            calls.text(&space, sink);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Start(space) => space.len(),
            State::Reasoning { .. } | State::Content => 0,
        }
    }
}
