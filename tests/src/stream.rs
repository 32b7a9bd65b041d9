//! A job's stream as a client reads it.

use std::net::TcpStream;
use std::time::Instant;

use crate::http::{Body, Connection, Head, Reply};
use crate::job::Transcript;
use crate::sse::{Item, Kind, Parser};

/// An open stream. Every byte is checked as it is read; dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    head: Head,
    body: Body,
    parser: Parser,
    transcript: Transcript,
}

impl Stream {
    /// Reads the head of the response; a refusal comes back as a reply.
    pub fn open(mut connection: Connection, begin: Instant, parser: Parser) -> Result<Self, Reply> {
        let head = connection.read_head().unwrap();
        let body = connection.into_body(&head);
        if head.status != 200 {
            return Err(body.into_reply(head, begin));
        }
        let kind = head.header("content-type").unwrap_or_default();
        assert!(
            kind == "text/event-stream; charset=utf-8",
            "content-type {kind:?}"
        );
        Ok(Self {
            head,
            body,
            parser,
            transcript: Transcript::starting(begin),
        })
    }

    /// Status and headers of the response.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What came so far.
    pub fn so_far(&self) -> &Transcript {
        &self.transcript
    }

    /// The socket, for options.
    pub fn socket(&self) -> &TcpStream {
        self.body.socket()
    }

    /// Waits for the next bytes; false at the stream's end. Panics on whatever the contract does
    /// not allow.
    #[track_caller]
    pub fn read(&mut self) -> bool {
        self.try_read()
            .unwrap_or_else(|e| panic!("{e}; so far: {:#?}", self.transcript.events))
    }

    /// Like [`read`](Self::read), with a broken connection or stream as an error.
    pub fn try_read(&mut self) -> Result<bool, String> {
        let Some(bytes) = self.body.read().map_err(|e| e.to_string())? else {
            return self.parser.finish().map(|()| false).map_err(|e| e.0);
        };
        let now = Instant::now();
        for item in self.parser.push(&bytes).map_err(|e| e.0)? {
            match item {
                Item::Comment(text) => self.transcript.comments.push(text),
                Item::Event(event) => {
                    self.transcript.events.push(event);
                    self.transcript.arrivals.push(now);
                }
            }
        }
        Ok(true)
    }

    /// Reads until `count` tokens are here, fewer when the stream ends before.
    #[track_caller]
    pub fn read_tokens(&mut self, count: usize) -> &mut Self {
        while self.transcript.ids().len() < count && !self.parser.is_over() && self.read() {}
        self
    }

    /// Reads until the first comment or event.
    #[track_caller]
    pub fn read_anything(&mut self) -> &mut Self {
        while self.transcript.events.is_empty()
            && self.transcript.comments.is_empty()
            && self.read()
        {}
        self
    }

    /// The `started` event is here.
    pub fn has_started(&self) -> bool {
        self.transcript
            .events
            .iter()
            .any(|e| matches!(e.kind, Kind::Started { .. }))
    }

    /// Reads to the end.
    #[track_caller]
    pub fn finish(mut self) -> Transcript {
        while self.read() {}
        self.transcript
    }
}
