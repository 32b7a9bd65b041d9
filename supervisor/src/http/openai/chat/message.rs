//! The assistant's message, whole and in deltas.

use super::super::call_id;
use crate::text::Piece;
use serde::Serialize;

/// What a chunk adds to a message.
#[derive(Debug, Default, Serialize)]
pub(super) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// As DeepSeek and vLLM name it; `reasoning` is the other name in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

#[derive(Debug, Serialize)]
struct CallDelta {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// A whole message.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
    /// What ids of calls are made of.
    #[serde(skip)]
    request: String,
}

#[derive(Debug, Serialize)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

impl Delta {
    /// The one that begins a message.
    pub(super) fn first() -> Self {
        Self {
            role: Some("assistant"),
            content: Some(String::new()),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.role.is_none()
            && self.content.is_none()
            && self.reasoning.is_none()
            && self.tool_calls.is_empty()
    }

    /// All that this one and the next one add.
    pub(super) fn with(self, next: Self) -> Self {
        let text = |first: Option<String>, next: Option<String>| match (first, next) {
            (Some(first), Some(next)) => Some(first + &next),
            (first, next) => first.or(next),
        };
        let mut tool_calls = self.tool_calls;
        tool_calls.extend(next.tool_calls);
        Self {
            role: self.role.or(next.role),
            content: text(self.content, next.content),
            reasoning_content: text(self.reasoning_content, next.reasoning_content),
            reasoning: text(self.reasoning, next.reasoning),
            tool_calls,
        }
    }

    fn call(index: u32, id: Option<String>, name: Option<String>, arguments: String) -> Self {
        let call = CallDelta {
            index,
            kind: id.as_ref().map(|_| "function"),
            id,
            function: FunctionDelta { name, arguments },
        };
        Self {
            tool_calls: vec![call],
            ..Self::default()
        }
    }
}

impl Message {
    /// An empty one: choice `index` of `request`.
    pub(super) fn new(request: &str, index: usize) -> Self {
        Self {
            role: "assistant",
            content: None,
            refusal: None,
            reasoning_content: None,
            reasoning: None,
            tool_calls: Vec::new(),
            request: format!("{request}/{index}"),
        }
    }

    /// As an answer has it: a message without calls has a content, be it an empty one.
    pub(super) fn whole(mut self) -> Self {
        if self.tool_calls.is_empty() {
            self.content.get_or_insert_default();
        }
        self
    }

    /// Adds what the model wrote.
    pub(super) fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Content(text) => self.content.get_or_insert_default().push_str(&text),
            Piece::Reasoning(text) => {
                self.reasoning_content
                    .get_or_insert_default()
                    .push_str(&text);
                self.reasoning.get_or_insert_default().push_str(&text);
            }
            Piece::ToolCall { index, name } => {
                let arguments = String::new();
                let function = Function { name, arguments };
                let id = self.call_id(index);
                self.tool_calls.push(Call {
                    id,
                    kind: "function",
                    function,
                });
            }
            Piece::Arguments { index, text } => {
                if let Some(call) = self.tool_calls.get_mut(index as usize) {
                    call.function.arguments.push_str(&text);
                }
            }
        }
    }

    /// The same as a delta.
    pub(super) fn delta(&self, piece: Piece) -> Delta {
        match piece {
            Piece::Content(text) => Delta {
                content: Some(text),
                ..Delta::default()
            },
            Piece::Reasoning(text) => Delta {
                reasoning_content: Some(text.clone()),
                reasoning: Some(text),
                ..Delta::default()
            },
            Piece::ToolCall { index, name } => {
                Delta::call(index, Some(self.call_id(index)), Some(name), String::new())
            }
            Piece::Arguments { index, text } => Delta::call(index, None, None, text),
        }
    }

    fn call_id(&self, index: u32) -> String {
        call_id(&self.request, index)
    }
}
