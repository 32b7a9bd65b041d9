//! The routes that can be asked: what a request to each says, and how its stream is read.

use serde_json::{Map, Value, json};

/// A route that streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Route {
    /// `/execute`
    Execute,
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
}

/// What a stream asks for.
pub(crate) struct Ask<'a> {
    /// What it is to go on with, or to answer.
    pub(crate) prompt: String,
    /// Most tokens.
    pub(crate) tokens: u32,
    /// 0: greedy.
    pub(crate) temperature: f64,
    /// Of its draws.
    pub(crate) seed: u64,
    /// Further fields.
    pub(crate) extra: Option<&'a Map<String, Value>>,
}

impl Route {
    /// Where it is.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Execute => "/execute",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    /// The body of a request.
    pub(crate) fn body(self, ask: &Ask<'_>) -> Value {
        let mut body = json!({
            "max_tokens": ask.tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
        });
        match self {
            Self::Execute => body["prompt"] = json!(ask.prompt),
            Self::Chat => body["messages"] = json!([{"role": "user", "content": ask.prompt}]),
            Self::Completions => body["prompt"] = json!(ask.prompt),
        }
        if self != Self::Execute {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        for (field, value) in ask.extra.into_iter().flatten() {
            body[field.as_str()] = value.clone();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_asked_in_its_own_form_and_further_fields_are_added() {
        let extra = json!({"logprobs": true, "max_tokens": 3});
        let ask = Ask {
            prompt: "a".to_owned(),
            tokens: 7,
            temperature: 0.0,
            seed: 5,
            extra: extra.as_object(),
        };
        let chat = Route::Chat.body(&ask);
        assert_eq!(chat["messages"][0]["content"], "a");
        assert_eq!(chat["stream"], true);
        assert_eq!(chat["max_tokens"], 3, "a further field wins");
        let native = Route::Execute.body(&Ask { extra: None, ..ask });
        assert_eq!(
            native,
            json!({"prompt": "a", "max_tokens": 7, "temperature": 0.0, "seed": 5})
        );
    }
}
