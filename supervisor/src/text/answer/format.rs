//! How a model writes reasoning and tool calls.

use super::tag::Tag;

/// How a model writes reasoning and tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerFormat {
    /// How it writes reasoning.
    pub reasoning: Reasoning,
    /// How it writes tool calls.
    pub tools: ToolFormat,
}

/// How a model writes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// Not at all, or in a way that is not known: it is content.
    #[default]
    None,
    /// In a block at the beginning, between two tags.
    Think(ThinkTags),
    /// In messages of the channel `analysis`.
    Harmony,
}

/// The tags around a reasoning block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkTags {
    /// `<think>…</think>`
    Angle,
    /// `[THINK]…[/THINK]`, of Mistral's reasoning models.
    Bracket,
}

/// How a model writes tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolFormat {
    /// Not at all, or in a way that is not known: they are content.
    #[default]
    None,
    /// `<tool_call>{"name": "f", "arguments": {}}</tool_call>`, of Hermes, Qwen and Granite 4.
    Hermes,
    /// The whole answer is `{"name": "f", "parameters": {}}`, after `<|python_tag|>` or not.
    Llama3Json,
    /// `[TOOL_CALLS][{"name": "f", "arguments": {}}]` or `[TOOL_CALLS]f[ARGS]{}`.
    Mistral,
    /// Messages of the channel `commentary` to `functions.f`.
    Harmony,
}

impl AnswerFormat {
    /// The format of the model whose chat template has the source `source`.
    ///
    /// A template contains the tags that its model writes, because it renders past answers.
    pub fn of_template(source: Option<&str>) -> Self {
        let source = source.unwrap_or_default();
        if source.contains(Tag::Channel.name()) {
            return Self {
                reasoning: Reasoning::Harmony,
                tools: ToolFormat::Harmony,
            };
        }
        Self {
            reasoning: reasoning(source),
            tools: tools(source),
        }
    }
}

fn reasoning(source: &str) -> Reasoning {
    let found = [ThinkTags::Angle, ThinkTags::Bracket]
        .into_iter()
        .find(|tags| source.contains(tags.open().name()) || source.contains(tags.close().name()));
    found.map_or(Reasoning::None, Reasoning::Think)
}

fn tools(source: &str) -> ToolFormat {
    // Qwen3-Coder and Qwen 3.5 write `<function=f><parameter=x>` inside `<tool_call>`, GLM 4 writes
    // `f<arg_key>x</arg_key>`. Neither is JSON and neither is parsed yet.
    let xml = source.contains("<function=") || source.contains("<arg_key>");
    if source.contains(Tag::ToolCalls.name()) {
        ToolFormat::Mistral
    } else if source.contains(Tag::ToolCall.name()) {
        if xml {
            ToolFormat::None
        } else {
            ToolFormat::Hermes
        }
    } else if source.contains(Tag::Python.name())
        || (source.contains(r#""parameters""#) && source.contains("ipython"))
    {
        ToolFormat::Llama3Json
    } else {
        ToolFormat::None
    }
}

impl ThinkTags {
    pub(super) fn open(self) -> Tag {
        match self {
            Self::Angle => Tag::Think,
            Self::Bracket => Tag::BracketThink,
        }
    }

    pub(super) fn close(self) -> Tag {
        match self {
            Self::Angle => Tag::ThinkEnd,
            Self::Bracket => Tag::BracketThinkEnd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of each model's template that tell its format.
    const CASES: &[(&str, Reasoning, ToolFormat)] = &[
        (
            // gpt-oss
            r#"{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}"#,
            Reasoning::Harmony,
            ToolFormat::Harmony,
        ),
        (
            // Mistral Nemo
            r#"{{- "[TOOL_CALLS][" }}"#,
            Reasoning::None,
            ToolFormat::Mistral,
        ),
        (
            // Ministral 3 Reasoning
            "{{- '[THINK]' + block['thinking'] + '[/THINK]' }}{{- '[TOOL_CALLS]' }}{{- name + '[ARGS]' + arguments }}",
            Reasoning::Think(ThinkTags::Bracket),
            ToolFormat::Mistral,
        ),
        (
            // Qwen3
            r#"{{- '<tool_call>\n{"name": "' }}{{- '\n</tool_call>' }}{{- '<think>\n\n</think>\n\n' }}"#,
            Reasoning::Think(ThinkTags::Angle),
            ToolFormat::Hermes,
        ),
        (
            // Qwen3-Coder
            r"{{- '\n<tool_call>\n<function=' + tool_call.name + '>\n' }}",
            Reasoning::None,
            ToolFormat::None,
        ),
        (
            // GLM 4.6
            r"{{ '\n<tool_call>' + tc.name }}<arg_key>{{ k }}</arg_key>{{ '\n<think></think>' }}",
            Reasoning::Think(ThinkTags::Angle),
            ToolFormat::None,
        ),
        (
            // Llama 3.1
            r#"{{- "<|python_tag|>" + tool_call.name + ".call(" }}{{- '"parameters": ' }}"#,
            Reasoning::None,
            ToolFormat::Llama3Json,
        ),
        (
            // Llama 3.2
            r#"{{- "Environment: ipython\n" }}{{- '"parameters": ' }}"#,
            Reasoning::None,
            ToolFormat::Llama3Json,
        ),
        (
            // DeepSeek R1
            r"{% set content = content.split('</think>')[-1] %}<｜tool▁calls▁begin｜>",
            Reasoning::Think(ThinkTags::Angle),
            ToolFormat::None,
        ),
        (
            // Granite 3.3: its tag has bars inside.
            "respond only with <|tool_call|> followed by a JSON list",
            Reasoning::None,
            ToolFormat::None,
        ),
        (
            // Gemma 4: its tags have one bar.
            r"{{- '<|channel>thought\n' }}{{- '<|tool_call>call:' }}",
            Reasoning::None,
            ToolFormat::None,
        ),
    ];

    #[test]
    fn a_template_tells_the_format_of_its_model() {
        for &(source, reasoning, tools) in CASES {
            let expected = AnswerFormat { reasoning, tools };
            assert_eq!(
                AnswerFormat::of_template(Some(source)),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn without_a_template_everything_is_content() {
        assert_eq!(AnswerFormat::of_template(None), AnswerFormat::default());
        assert_eq!(
            AnswerFormat::of_template(Some("{{ messages }}")),
            AnswerFormat::default()
        );
    }
}
