//! The messages of gpt-oss.
//!
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>`:
//! a header says what the text after it is. A recipient `to=functions.f` stands in front of the
//! channel or after it, and makes the text the arguments of a call.

use super::MAX_HELD;
use super::sink::Sink;
use super::tag::Tag;

const START: &str = Tag::Start.name();

/// Tells messages apart by their headers.
#[derive(Clone, Debug)]
pub(super) struct Harmony {
    with_tools: bool,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Between messages: text that may be the beginning of a header whose first tag has not come.
    Between(String),
    Header(Header),
    Body(Body),
}

#[derive(Clone, Debug, Default)]
struct Header {
    /// Its text, with a space in the place of each tag.
    text: String,
    /// Where the channel's name begins in it.
    channel: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Content,
    Reasoning,
    Arguments,
}

impl Harmony {
    /// The prompt ends inside the first header, usually after its role.
    pub(super) fn new(prompt_tail: &str, with_tools: bool) -> Self {
        Self {
            with_tools,
            state: State::after(prompt_tail),
        }
    }

    pub(super) fn text(&mut self, mut text: &str, sink: &mut Sink) {
        while !text.is_empty() {
            text = match &mut self.state {
                State::Between(_) => self.between(text, sink),
                State::Header(_) => self.header(text, sink),
                State::Body(body) => return body.put(text, sink),
            };
        }
    }

    /// Text without a header is content, as soon as it cannot be the beginning of one.
    fn between<'t>(&mut self, text: &'t str, sink: &mut Sink) -> &'t str {
        let State::Between(held) = &mut self.state else {
            return text;
        };
        for (at, c) in text.char_indices() {
            held.push(c);
            if !may_begin_header(held) || held.len() > MAX_HELD {
                sink.content(&std::mem::take(held));
                self.state = State::Body(Body::Content);
                return &text[at + c.len_utf8()..];
            }
        }
        ""
    }

    fn header<'t>(&mut self, text: &'t str, sink: &mut Sink) -> &'t str {
        let State::Header(header) = &mut self.state else {
            return text;
        };
        header.text.push_str(text);
        if header.text.len() > MAX_HELD {
            sink.content(&std::mem::take(&mut header.text));
            self.state = State::Body(Body::Content);
        }
        ""
    }

    pub(super) fn tag(&mut self, tag: Tag, sink: &mut Sink) {
        match tag {
            Tag::Start => {
                self.end(sink);
                self.state = State::Header(Header::default());
            }
            Tag::Channel => {
                let mut header = self.take_header();
                header.separate();
                header.channel = Some(header.text.len());
                self.state = State::Header(header);
            }
            Tag::Message if !matches!(self.state, State::Body(_)) => {
                let body = self.take_header().open(self.with_tools, sink);
                self.state = State::Body(body);
            }
            Tag::End | Tag::Call | Tag::Return => self.end(sink),
            // `<|constrain|>`, and tags where they have no meaning.
            _ => {
                if let State::Header(header) = &mut self.state {
                    header.separate();
                }
            }
        }
    }

    /// The header so far. A message that has no end is over when another header begins.
    fn take_header(&mut self) -> Header {
        let state = std::mem::replace(&mut self.state, State::Between(String::new()));
        match state {
            State::Header(header) => header,
            State::Between(text) => Header {
                text,
                channel: None,
            },
            State::Body(_) => Header::default(),
        }
    }

    /// A message is over, or the white space between two.
    fn end(&mut self, sink: &mut Sink) {
        let state = std::mem::replace(&mut self.state, State::Between(String::new()));
        if let State::Between(text) = state
            && !text.trim().is_empty()
        {
            sink.content(&text);
        }
    }

    /// A header whose message has not begun says nothing to the reader.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        let state = std::mem::replace(&mut self.state, State::Between(String::new()));
        if let State::Between(text) = state {
            sink.content(&text);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Between(text) | State::Header(Header { text, .. }) => text.len(),
            State::Body(_) => 0,
        }
    }
}

impl State {
    /// The state after a prompt.
    fn after(prompt_tail: &str) -> Self {
        let nothing = Self::Between(String::new());
        let Some((_, last)) = prompt_tail.rsplit_once(START) else {
            return nothing;
        };
        let ends = [Tag::End, Tag::Call, Tag::Return];
        if ends.iter().any(|tag| last.contains(tag.name())) {
            return nothing;
        }
        let (header, body) = match last.split_once(Tag::Message.name()) {
            Some((header, _)) => (header, true),
            None => (last, false),
        };
        let header = Header::from_prompt(header);
        match header.channel {
            // What the prompt has begun can't be a call: its name would have gone to no reader.
            _ if body => Self::Body(header.open(false, &mut Sink::new(false))),
            Some(_) => Self::Header(header),
            None => nothing,
        }
    }
}

impl Header {
    fn from_prompt(text: &str) -> Self {
        let channel = text.rfind(Tag::Channel.name());
        Self {
            channel: channel.map(|at| at + Tag::Channel.name().len()),
            text: text.to_owned(),
        }
    }

    /// Puts a space in the place of a tag, one for any number of them.
    fn separate(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.text.push(' ');
        }
    }

    /// What the message after this header is.
    fn open(&self, with_tools: bool, sink: &mut Sink) -> Body {
        let channel = self
            .channel
            .and_then(|at| self.text[at..].split_whitespace().next());
        let mut words = self.text.split_whitespace();
        let recipient = words.find_map(|word| word.strip_prefix("to="));
        let function = recipient.and_then(|name| name.strip_prefix("functions."));
        match (channel, recipient) {
            _ if with_tools && function.is_some_and(|name| !name.is_empty()) => {
                sink.begin_call(function.unwrap_or_default().to_owned());
                Body::Arguments
            }
            (Some("analysis"), _) => Body::Reasoning,
            // Calls of the model's own tools, which the reader has not offered.
            (_, Some(recipient)) if function.is_none() && !is_role(recipient) => Body::Reasoning,
            _ => Body::Content,
        }
    }
}

fn is_role(recipient: &str) -> bool {
    matches!(recipient, "user" | "assistant" | "all")
}

impl Body {
    fn put(self, text: &str, sink: &mut Sink) {
        match self {
            Self::Content => sink.content(text),
            Self::Reasoning => sink.reasoning(text),
            Self::Arguments => sink.arguments(text),
        }
    }
}

/// Whether `text` may become `assistant to=functions.f`, of which each part may be absent.
fn may_begin_header(text: &str) -> bool {
    let text = text.trim_start();
    if "assistant".starts_with(text) {
        return true;
    }
    let rest = text.strip_prefix("assistant").unwrap_or(text).trim_start();
    match rest.strip_prefix("to=") {
        Some(recipient) => !recipient.trim_end().contains(char::is_whitespace),
        None => "to=".starts_with(rest),
    }
}
