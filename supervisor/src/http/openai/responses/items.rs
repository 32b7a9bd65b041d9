//! The items that an answer consists of, and the events that tell of them.

use serde_json::{Value, json};

use super::super::call_id;
use crate::text::Piece;

const COMPLETED: &str = "completed";

/// The items so far; the last of them may be open.
pub(super) struct Items {
    request: String,
    items: Vec<Item>,
}

struct Item {
    kind: Kind,
    /// Text, or arguments.
    text: String,
    is_open: bool,
    /// Where it is not open any more.
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    Call { index: u32, name: String },
}

/// An event's name and data.
type Event = (&'static str, Value);

impl Items {
    pub(super) fn new(request: &str) -> Self {
        Self {
            request: request.to_owned(),
            items: Vec::new(),
        }
    }

    /// Takes what the model wrote.
    pub(super) fn add(&mut self, piece: Piece) -> Vec<Event> {
        match piece {
            Piece::Content(text) => self.text(Kind::Message, &text, "response.output_text.delta"),
            Piece::Reasoning(text) => {
                self.text(Kind::Reasoning, &text, "response.reasoning_text.delta")
            }
            Piece::ToolCall { index, name } => self.open(Kind::Call { index, name }),
            Piece::Arguments { text, .. } => {
                self.grow(&text, "response.function_call_arguments.delta")
            }
        }
    }

    /// Ends the last item, which is then of this status.
    fn finish(&mut self, status: &'static str) -> Vec<Event> {
        let index = self.items.len().wrapping_sub(1);
        let Some(item) = self.items.last_mut().filter(|item| item.is_open) else {
            return Vec::new();
        };
        (item.is_open, item.status) = (false, status);
        let text = item.text.clone();
        let place = json!({"item_id": self.id(index), "output_index": index});
        let mut events = match self.items[index].kind {
            Kind::Message => vec![
                (
                    "response.output_text.done",
                    json!({"text": text, "content_index": 0, "logprobs": []}),
                ),
                (
                    "response.content_part.done",
                    json!({"content_index": 0, "part": output_text(&text)}),
                ),
            ],
            Kind::Reasoning => vec![(
                "response.reasoning_text.done",
                json!({"text": text, "content_index": 0}),
            )],
            Kind::Call { ref name, .. } => {
                vec![(
                    "response.function_call_arguments.done",
                    json!({"arguments": text, "name": name}),
                )]
            }
        };
        events.iter_mut().for_each(|(_, data)| merge(data, &place));
        let done = json!({"output_index": index, "item": self.item(index)});
        events.push(("response.output_item.done", done));
        events
    }

    /// Ends the answer, which is then of this status. One that is complete has a message or a call, be it an empty message.
    pub(super) fn end(&mut self, status: &'static str) -> Vec<Event> {
        let says = |item: &Item| item.kind != Kind::Reasoning;
        let mut events = Vec::new();
        if status == COMPLETED && !self.items.iter().any(says) {
            events = self.open(Kind::Message);
        }
        events.extend(self.finish(status));
        events
    }

    /// All items as the answer has them.
    pub(super) fn output(&self) -> Vec<Value> {
        (0..self.items.len())
            .map(|index| self.item(index))
            .collect()
    }

    fn text(&mut self, kind: Kind, text: &str, event: &'static str) -> Vec<Event> {
        let goes_on = self
            .items
            .last()
            .is_some_and(|item| item.is_open && item.kind == kind);
        let mut events = if goes_on { Vec::new() } else { self.open(kind) };
        events.extend(self.grow(text, event));
        events
    }

    fn open(&mut self, kind: Kind) -> Vec<Event> {
        let mut events = self.finish(COMPLETED);
        let index = self.items.len();
        let is_message = kind == Kind::Message;
        self.items.push(Item {
            kind,
            text: String::new(),
            is_open: true,
            status: COMPLETED,
        });
        let added = json!({"output_index": index, "item": self.item(index)});
        events.push(("response.output_item.added", added));
        if is_message {
            let mut data = json!({"content_index": 0, "part": output_text("")});
            merge(
                &mut data,
                &json!({"item_id": self.id(index), "output_index": index}),
            );
            events.push(("response.content_part.added", data));
        }
        events
    }

    fn grow(&mut self, text: &str, event: &'static str) -> Vec<Event> {
        let index = self.items.len().wrapping_sub(1);
        let Some(item) = self.items.last_mut() else {
            return Vec::new();
        };
        item.text.push_str(text);
        let mut data = json!({"delta": text, "item_id": self.id(index), "output_index": index});
        if !matches!(self.items[index].kind, Kind::Call { .. }) {
            data["content_index"] = 0.into();
        }
        if event == "response.output_text.delta" {
            data["logprobs"] = json!([]);
        }
        vec![(event, data)]
    }

    fn item(&self, index: usize) -> Value {
        let item = &self.items[index];
        let status = if item.is_open {
            "in_progress"
        } else {
            item.status
        };
        let id = self.id(index);
        match &item.kind {
            Kind::Message => {
                let content = if item.is_open {
                    json!([])
                } else {
                    json!([output_text(&item.text)])
                };
                json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
            }
            Kind::Reasoning => json!({
                "type": "reasoning", "id": id, "status": status, "summary": [],
                "content": [{"type": "reasoning_text", "text": item.text}],
            }),
            Kind::Call { index, name } => json!({
                "type": "function_call", "id": id, "status": status, "name": name, "arguments": item.text,
                "call_id": call_id(&format!("{}/0", self.request), *index),
            }),
        }
    }

    fn id(&self, index: usize) -> String {
        let prefix = match self.items[index].kind {
            Kind::Message => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { .. } => "fc",
        };
        format!(
            "{prefix}_{}_{index}",
            self.request.trim_start_matches("resp-")
        )
    }
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// Adds the members of `more` to `data`.
fn merge(data: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        data[name] = value.clone();
    }
}
