//! Server-sent events: the data of each, as the service writes it, one line each.

/// Longest event, bytes: what is longer comes from another kind of service.
const MAX_EVENT: usize = 16 << 20;

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
}

/// An event is longer than any of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Parser {
    /// The data of the events that are complete with these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut complete = Vec::new();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + part.len() > MAX_EVENT {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                complete.extend(self.end_line(line.trim_ascii_end()));
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        if line.is_empty() {
            return self.data.take();
        }
        if let Some(data) = line.strip_prefix(b"data: ") {
            self.data = Some(data.to_vec());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_network_cuts() {
        let stream =
            b": queued\n\nevent: token\nid: 1\ndata: {\"t\": 1}\n\ndata: [DONE]\n\ndata: cut";
        for size in [1, 2, 7, stream.len()] {
            let mut parser = Parser::default();
            let parts = stream.chunks(size).map(|part| parser.push(part).unwrap());
            let events: Vec<_> = parts.flatten().collect();
            assert_eq!(
                events,
                [b"{\"t\": 1}".to_vec(), b"[DONE]".to_vec()],
                "{size}"
            );
        }
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut parser = Parser::default();
        let part = vec![b'x'; 1 << 20];
        let found = (0..17).find_map(|_| parser.push(&part).err());
        assert_eq!(found, Some(TooLong));
    }
}
