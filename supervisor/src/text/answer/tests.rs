use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// An id that no tag has.
const PLAIN: u32 = 999;

const THINK: AnswerFormat = format(Reasoning::Think(ThinkTags::Angle), ToolFormat::None);
const QWEN: AnswerFormat = format(Reasoning::Think(ThinkTags::Angle), ToolFormat::Hermes);
const HERMES: AnswerFormat = format(Reasoning::None, ToolFormat::Hermes);
const LLAMA: AnswerFormat = format(Reasoning::None, ToolFormat::Llama3Json);
const MISTRAL: AnswerFormat = format(Reasoning::None, ToolFormat::Mistral);
const MINISTRAL: AnswerFormat = format(Reasoning::Think(ThinkTags::Bracket), ToolFormat::Mistral);
const HARMONY: AnswerFormat = format(Reasoning::Harmony, ToolFormat::Harmony);
const ALL: [AnswerFormat; 7] = [THINK, QWEN, HERMES, LLAMA, MISTRAL, MINISTRAL, HARMONY];

const fn format(reasoning: Reasoning, tools: ToolFormat) -> AnswerFormat {
    AnswerFormat { reasoning, tools }
}

/// The formats' control tokens.
const TAGS: [&str; 17] = [
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|constrain|>",
];

/// The vocabulary in which every tag has the id of its place in a list.
fn vocabulary() -> ControlTokens {
    ControlTokens::new(id_of)
}

fn id_of(name: &str) -> Option<u32> {
    let at = TAGS.iter().position(|known| *known == name)?;
    u32::try_from(at).ok()
}

/// `r(…)` for reasoning, `c(…)` for content, `f[0](…)` for a call of `f`; neighbors are joined.
fn show(pieces: &[Piece]) -> String {
    let mut shown = String::new();
    let mut last = "";
    for piece in pieces {
        let (kind, text) = match piece {
            Piece::Content(text) => ("c", text),
            Piece::Reasoning(text) => ("r", text),
            Piece::ToolCall { name, .. } => ("call", name),
            Piece::Arguments { text, .. } => ("arguments", text),
        };
        if let Piece::Arguments { text, .. } = piece {
            assert!(!text.is_empty() && matches!(last, "" | "call" | "arguments"));
        }
        if kind != last && !last.is_empty() && kind != "arguments"
            || kind == "call" && last == "call"
        {
            shown.push(')');
        }
        match piece {
            Piece::ToolCall { index, .. } => shown.push_str(&format!("{text}[{index}](")),
            _ if kind != last && kind != "arguments" => shown.push_str(&format!("{kind}({text}")),
            _ => shown.push_str(text),
        }
        last = kind;
    }
    if !last.is_empty() {
        shown.push(')');
    }
    shown
}

struct Case {
    format: AnswerFormat,
    controls: ControlTokens,
    prompt: &'static str,
    with_tools: bool,
}

impl Case {
    fn of(format: AnswerFormat) -> Self {
        Self {
            format,
            controls: ControlTokens::default(),
            prompt: "",
            with_tools: true,
        }
    }

    fn parser(&self) -> AnswerParser {
        AnswerParser::new(self.format, self.controls, self.prompt, self.with_tools)
    }

    /// The pieces of each push, and those of the end.
    fn pushes<'t>(&self, tokens: impl IntoIterator<Item = (u32, &'t str)>) -> Vec<Vec<Piece>> {
        let mut parser = self.parser();
        let mut pushes = Vec::new();
        for (id, text) in tokens {
            pushes.push(Vec::new());
            parser.push(id, text, pushes.last_mut().unwrap());
        }
        let mut out = Vec::new();
        parser.finish(&mut out);
        assert_eq!(parser.held(), 0);
        pushes.push(out);
        let calls = pushes.concat();
        let any = calls.iter().any(|p| matches!(p, Piece::ToolCall { .. }));
        assert_eq!(parser.has_calls(), any);
        pushes
    }

    fn tokens<'t>(&self, tokens: impl IntoIterator<Item = (u32, &'t str)>) -> String {
        show(&self.pushes(tokens).concat())
    }

    /// What `text` is, which a push of each character has to agree with.
    fn parse(&self, text: &str) -> String {
        let whole = self.tokens([(PLAIN, text)]);
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let single = self.tokens(chars.iter().map(|c| (PLAIN, c.as_str())));
        assert_eq!(whole, single, "{text}");
        whole
    }
}

fn parse(format: AnswerFormat, text: &str) -> String {
    Case::of(format).parse(text)
}

/// What each push brings.
fn streamed(format: AnswerFormat, texts: &[&str]) -> Vec<String> {
    let pushes = Case::of(format).pushes(texts.iter().map(|&text| (PLAIN, text)));
    pushes.iter().map(|pieces| show(pieces)).collect()
}

// Reasoning

#[test]
fn a_block_at_the_beginning_is_reasoning() {
    let text = "\n<think>\nHm: 2 < 3.\n</think>\n\nYes.\n";
    assert_eq!(parse(THINK, text), "r(Hm: 2 < 3.\n)c(Yes.\n)");
    assert_eq!(parse(MINISTRAL, "[THINK]Hm.[/THINK]Yes."), "r(Hm.)c(Yes.)");
}

#[test]
fn a_block_elsewhere_is_content() {
    let text = "A<think>b</think>c";
    assert_eq!(parse(THINK, text), "c(A<think>b</think>c)");
    let twice = "<think>a</think> <think>b</think>";
    assert_eq!(parse(THINK, twice), "r(a)c(<think>b</think>)");
}

#[test]
fn a_block_without_an_end_is_all_reasoning() {
    assert_eq!(parse(THINK, "<think> a </thin"), "r(a </thin)");
    assert_eq!(parse(THINK, "<think>\n"), "");
}

#[test]
fn a_prompt_may_have_opened_the_block() {
    let case = Case {
        prompt: "<｜Assistant｜><think>\n",
        ..Case::of(THINK)
    };
    assert_eq!(
        case.parse("\nHm <think>.</think>\nYes."),
        "r(Hm <think>.)c(Yes.)"
    );
}

#[test]
fn a_prompt_may_have_closed_the_block() {
    let case = Case {
        prompt: "<think>\n\n</think>\n\n",
        ..Case::of(THINK)
    };
    assert_eq!(case.parse("\nYes."), "c(Yes.)");
    assert_eq!(case.parse("<think>a</think>b"), "r(a)c(b)");
}

#[test]
fn a_tool_call_inside_reasoning_is_reasoning() {
    let text = r#"<think>a<tool_call>{"name": "f"}</tool_call></think>b"#;
    assert_eq!(
        parse(QWEN, text),
        r#"r(a<tool_call>{"name": "f"}</tool_call>)c(b)"#
    );
}

#[test]
fn what_may_begin_a_tag_waits_and_nothing_else_does() {
    let pushes = streamed(
        THINK,
        &["<th", "ink>", "a<", "b</think", "ing", "</think>", "c<"],
    );
    let expected = ["", "", "r(a)", "r(<b)", "r(</thinking)", "", "c(c)", "c(<)"];
    assert_eq!(pushes, expected);
}

// Hermes

#[test]
fn calls_between_tags_are_calls() {
    let text = concat!(
        "Let me see. \n<tool_call>\n",
        r#"{"name": "f", "arguments": {"a": {"b": [1, "}\"<tool_call>\\"]}, "é": "🦀"}}"#,
        "\n</tool_call>\n<tool_call>\n",
        r#"{"name": "g.h", "arguments": {}}"#,
        "\n</tool_call>\n",
    );
    let expected = concat!(
        "c(Let me see.)",
        r#"f[0]({"a": {"b": [1, "}\"<tool_call>\\"]}, "é": "🦀"})"#,
        "g.h[1]({})",
    );
    assert_eq!(parse(HERMES, text), expected);
    assert_eq!(
        parse(QWEN, &format!("<think>x</think>\n\n{text}")),
        format!("r(x){expected}")
    );
}

#[test]
fn a_call_begins_with_its_name_and_streams_its_arguments() {
    let texts = [
        "<tool_call>\n{\"name\": \"f",
        "\", \"arg",
        "uments\": {\"a\"",
        ": 1",
        "}}\n",
    ];
    let expected = ["", "f[0]()", "", "", ""];
    let case = Case::of(HERMES);
    let pushes = case.pushes(texts.map(|text| (PLAIN, text)));
    assert_eq!(show(&pushes[0]), expected[0]);
    assert_eq!(show(&pushes[1]), expected[1]);
    let arguments = |text: &str| {
        vec![Piece::Arguments {
            index: 0,
            text: text.into(),
        }]
    };
    assert_eq!(
        pushes[2..5],
        [arguments("{\"a\""), arguments(": 1"), arguments("}")]
    );
}

#[test]
fn arguments_before_the_name_wait_for_the_end_of_the_call() {
    let text = r#"<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>"#;
    assert_eq!(parse(HERMES, text), r#"f[0]({"a": 1})"#);
    assert_eq!(
        parse(HERMES, &text[..text.len() - 13]),
        format!("c({})", &text[..text.len() - 13])
    );
}

#[test]
fn arguments_in_a_string_are_what_it_contains() {
    let text = r#"<tool_call>{"name": "f", "arguments": "{\"a\": \"\u00e9\\n\"}"}</tool_call>"#;
    assert_eq!(parse(HERMES, text), r#"f[0]({"a": "é\n"})"#);
}

#[test]
fn a_call_without_arguments_has_an_empty_object() {
    for rest in [
        "",
        r#", "arguments": null"#,
        r#", "arguments": """#,
        r#", "id": [{"arguments": 1}]"#,
    ] {
        let text = format!(r#"<tool_call>{{"name": "f"{rest}}}</tool_call>"#);
        assert_eq!(parse(HERMES, &text), "f[0]({})", "{text}");
    }
}

#[test]
fn other_keys_are_skipped_and_a_second_value_is_too() {
    let text = concat!(
        r#"<tool_call>{"id": -1.5e+3, "type": "function", "x": {"name": "no"}, "name": "f", "#,
        r#""parameters": {"a": 1}, "arguments": {"b": 2}, "name": "g",}</tool_call>"#
    );
    assert_eq!(parse(HERMES, text), r#"f[0]({"a": 1})"#);
}

#[test]
fn what_is_no_call_comes_back_whole() {
    let cases = [
        "<tool_call>",
        "a \n<tool_call>\n</tool_call> b",
        "<tool_call>f(x)</tool_call>\n",
        "<tool_call>{}</tool_call>",
        r#"<tool_call>{"name": 1}</tool_call>"#,
        r#"<tool_call>{"name": ""}</tool_call>"#,
        r#"<tool_call>{"name": "\x"}</tool_call>"#,
        r#"<tool_call>{'name': 'f'}</tool_call>"#,
        r#"<tool_call>{"arguments": [1], "name": "f"}</tool_call>"#,
        r#"<tool_call>{"arguments": {"a": "</tool_call>"} "name": "f"}</tool_call>"#,
        r#"<tool_call>{"arguments": {"a": 1"#,
        r#"<tool_call>{"name": "f"#,
        "</tool_call>",
    ];
    for text in cases {
        assert_eq!(parse(HERMES, text), format!("c({text})"));
    }
}

#[test]
fn a_call_that_went_wrong_ends_and_another_follows() {
    let text = concat!(
        r#"<tool_call>{"name": "f", "arguments": 5}</tool_call>"#,
        r#"<tool_call>{"name": "g", "arguments": {"a": 1}}}]"#,
        r#"<tool_call>{"na<tool_call>{"name": "h"}"#,
    );
    // The quote of `"na` is open, so that the tag is text in a string, which is no key.
    let expected = concat!(
        "f[0]()c(5})",
        r#"g[1]({"a": 1})"#,
        r#"c(<tool_call>{"na<tool_call>{"name": "h"})"#,
    );
    assert_eq!(parse(HERMES, text), expected);
    let text = r#"<tool_call>{"name" <tool_call>{"name": "h"}</tool_call>"#;
    assert_eq!(parse(HERMES, text), r#"c(<tool_call>{"name")h[0]({})"#);
}

#[test]
fn text_after_calls_is_content() {
    let text = "<tool_call>{\"name\": \"f\"}</tool_call>\n\nDone. ";
    assert_eq!(parse(HERMES, text), "f[0]({})c(Done. )");
    let unclosed = "<tool_call>{\"name\": \"f\"}\nDone.</tool_call>";
    assert_eq!(parse(HERMES, unclosed), "f[0]({})c(Done.)");
}

#[test]
fn without_tools_calls_are_content() {
    let texts = [
        (HERMES, r#" <tool_call>{"name": "f"}</tool_call> "#),
        (LLAMA, r#" {"name": "f", "parameters": {}}"#),
        (MISTRAL, r#"[TOOL_CALLS]f[ARGS]{}"#),
    ];
    for (format, text) in texts {
        let case = Case {
            with_tools: false,
            ..Case::of(format)
        };
        assert_eq!(case.parse(text), format!("c({text})"));
        assert_eq!(case.pushes([(PLAIN, text)])[0].len(), 1, "nothing waits");
    }
}

// Llama

#[test]
fn an_answer_that_is_calls_is_calls() {
    let call = r#"{"name": "f", "parameters": {"a": "}"}}"#;
    assert_eq!(parse(LLAMA, &format!(" {call}\n")), r#"f[0]({"a": "}"})"#);
    assert_eq!(
        parse(LLAMA, &format!("<|python_tag|>{call}")),
        r#"f[0]({"a": "}"})"#
    );
    let typed = r#"{"type": "function", "name": "f", "parameters": {"a": 1}, "id": 1}"#;
    assert_eq!(parse(LLAMA, typed), r#"f[0]({"a": 1})"#);
    let several = format!("{call}; {call}\n<|python_tag|>{{\"name\": \"g\"}}");
    assert_eq!(
        parse(LLAMA, &several),
        r#"f[0]({"a": "}"})f[1]({"a": "}"})g[2]({})"#
    );
}

#[test]
fn a_json_answer_is_content() {
    let cases = [
        r#" {"name": "Alice", "age": 3}"#,
        r#"{"name": "Alice"}"#,
        r#"{"title": 1}"#,
        r#"{"name": "f", "parameters": "#,
        r#"Sure: {"name": "f", "parameters": {}}"#,
        "<|python_tag|>print(1)",
        "<|python_tag|> ",
        r#"<|python_tag|>{"x":1}"#,
    ];
    for text in cases {
        assert_eq!(parse(LLAMA, text), format!("c({text})"));
    }
}

#[test]
fn a_guessed_call_begins_with_its_arguments() {
    let pushes = streamed(LLAMA, &["{\"name\": \"f\", ", "\"parameters\": {", "}}"]);
    assert_eq!(pushes[0], "");
    assert_eq!(pushes[1], "f[0]({)");
}

#[test]
fn text_after_a_call_of_llama_is_content() {
    let text = r#"{"name": "f", "parameters": {}} Done {"name": "f", "parameters": {}}"#;
    assert_eq!(
        parse(LLAMA, text),
        r#"f[0]({})c(Done {"name": "f", "parameters": {}})"#
    );
}

// Mistral

#[test]
fn a_list_of_calls_is_calls() {
    let text = concat!(
        r#"Hm. [TOOL_CALLS] [{"name": "f", "arguments": {"a": "[TOOL_CALLS]]"}} , "#,
        r#"{"arguments": {}, "name": "g"}] "#
    );
    assert_eq!(
        parse(MISTRAL, text),
        r#"c(Hm.)f[0]({"a": "[TOOL_CALLS]]"})g[1]({})"#
    );
    let single = r#"[TOOL_CALLS]{"name": "f", "arguments": {}}"#;
    assert_eq!(parse(MISTRAL, single), "f[0]({})");
}

#[test]
fn named_calls_are_calls() {
    let text = concat!(
        r#"Hm [1].[TOOL_CALLS]f[ARGS]{"a": "}[ARGS]"}"#,
        "[TOOL_CALLS]g [CALL_ID]x9Y[ARGS] {}[TOOL_CALLS]h{}"
    );
    assert_eq!(
        parse(MISTRAL, text),
        r#"c(Hm [1].)f[0]({"a": "}[ARGS]"})g[1]({})h[2]({})"#
    );
}

#[test]
fn what_is_no_call_of_mistral_comes_back_whole() {
    let cases = [
        "a [TOOL_CALLS]",
        "[TOOL_CALLS] hello there [ARGS]",
        "[TOOL_CALLS][ARGS]{}",
        "[TOOL_CALLS][]",
        r#"[TOOL_CALLS][{"x": 1}, {"name": "f"}]"#,
        "[TOOL_CALLS]f",
        "[TOOL_CALLS] \n",
        "[ARGS]a",
    ];
    for text in cases {
        assert_eq!(parse(MISTRAL, text), format!("c({text})"));
    }
}

#[test]
fn a_named_call_without_arguments_ends() {
    assert_eq!(parse(MISTRAL, "[TOOL_CALLS]f[ARGS]no"), "f[0]()c(no)");
    let text = r#"[TOOL_CALLS][{"name": "f"}, oops]"#;
    assert_eq!(parse(MISTRAL, text), "f[0]({})c(oops])");
}

// Harmony

const START_PROMPT: &str = "<|end|><|start|>assistant";

fn harmony() -> Case {
    Case {
        prompt: START_PROMPT,
        ..Case::of(HARMONY)
    }
}

#[test]
fn channels_tell_reasoning_from_content() {
    let text = "<|channel|>analysis<|message|> Hm.<|end|>\
                <|start|>assistant<|channel|>commentary<|message|>Wait. <|end|>\
                <|start|>assistant<|channel|>final<|message|>Yes.<|return|>";
    assert_eq!(harmony().parse(text), "r( Hm.)c(Wait. Yes.)");
}

#[test]
fn a_message_to_a_function_is_a_call() {
    let after =
        r#"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "é"}<|call|>"#;
    let before = r#" to=functions.f<|channel|>commentary json<|message|>{"a": "é"}<|call|>"#;
    assert_eq!(harmony().parse(after), r#"f[0]({"a": "é"})"#);
    assert_eq!(harmony().parse(before), r#"f[0]({"a": "é"})"#);
    let two = format!("{after}<|start|>assistant{before}");
    assert_eq!(harmony().parse(&two), r#"f[0]({"a": "é"})f[1]({"a": "é"})"#);
    let stuck = "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}";
    assert_eq!(harmony().parse(stuck), "f[0]({})");
    let no_tools = Case {
        with_tools: false,
        ..harmony()
    };
    assert_eq!(no_tools.parse(after), r#"c({"a": "é"})"#);
}

#[test]
fn a_message_to_a_tool_of_the_model_is_reasoning() {
    let text = "<|channel|>commentary to=python code<|message|>1+1<|call|>";
    assert_eq!(harmony().parse(text), "r(1+1)");
}

#[test]
fn text_without_a_header_is_content() {
    for text in [
        "Yes.",
        " to be",
        "to=x y",
        "assist",
        " ",
        "assistants",
        "a<|cha",
    ] {
        assert_eq!(harmony().parse(text), format!("c({text})"));
    }
    assert_eq!(harmony().parse("<|message|>a<|end|>b"), "c(ab)");
    let missing_start =
        "<|channel|>analysis<|message|>a<|end|>assistant<|channel|>final<|message|>b";
    assert_eq!(harmony().parse(missing_start), "r(a)c(b)");
}

#[test]
fn messages_and_headers_may_be_cut_off() {
    assert_eq!(harmony().parse("<|channel|>analysis<|message|>a"), "r(a)");
    assert_eq!(harmony().parse("<|channel|>analysis"), "");
    assert_eq!(
        harmony().parse("<|channel|>analysis<|message|>a<|channel|>final<|message|>b"),
        "r(a)c(b)"
    );
    let endless = "x".repeat(MAX_HELD + 1);
    assert_eq!(
        harmony().parse(&format!("<|channel|>{endless}")),
        format!("c({endless})")
    );
}

#[test]
fn a_prompt_may_have_begun_the_message() {
    let opened = Case {
        prompt: "<|start|>assistant<|channel|>analysis<|message|>",
        ..harmony()
    };
    assert_eq!(opened.parse("a<|end|>b"), "r(a)c(b)");
    let named = Case {
        prompt: "<|start|>assistant<|channel|>",
        ..harmony()
    };
    assert_eq!(named.parse("analysis<|message|>a"), "r(a)");
    let closed = Case {
        prompt: "<|start|>user<|message|>analysis<|end|>",
        ..harmony()
    };
    assert_eq!(closed.parse("a"), "c(a)");
}

// Tokens

/// `text` as tokens of [`vocabulary`]: tags are tokens, with their text or without.
fn tokenize(text: &str, with_text: bool) -> Vec<(u32, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let close = rest.find(['>', ']']).map_or("", |at| &rest[..=at]);
        let token = match id_of(close) {
            Some(id) => (id, close),
            None => (PLAIN, &rest[..c.len_utf8()]),
        };
        rest = &rest[token.1.len()..];
        tokens.push(if token.0 == PLAIN || with_text {
            token
        } else {
            (token.0, "")
        });
    }
    tokens
}

#[test]
fn control_tokens_count_as_their_names() {
    let cases = [
        (
            QWEN,
            "<think>a</think>b <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"<think>\"}}</tool_call>",
        ),
        (LLAMA, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}"),
        (
            MISTRAL,
            "a[TOOL_CALLS]f[CALL_ID]123[ARGS]{\"x\": \"[ARGS]\"}",
        ),
        (
            MINISTRAL,
            "[THINK]a[/THINK]b[TOOL_CALLS][{\"name\": \"f\"}]",
        ),
        (
            HARMONY,
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant\
             <|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
        ),
    ];
    for (format, text) in cases {
        let spelled = parse(format, text);
        assert!(spelled.contains("f[0]("));
        let case = Case {
            controls: vocabulary(),
            ..Case::of(format)
        };
        for with_text in [false, true] {
            assert_eq!(case.tokens(tokenize(text, with_text)), spelled);
        }
    }
}

#[test]
fn a_spelled_control_token_is_a_quotation() {
    let case = Case {
        controls: vocabulary(),
        ..harmony()
    };
    let channel = id_of("<|channel|>").unwrap();
    let message = id_of("<|message|>").unwrap();
    let tokens = [
        (channel, ""),
        (PLAIN, "final"),
        (message, ""),
        (PLAIN, "Write <|channel|>analysis<|end|>."),
    ];
    assert_eq!(case.tokens(tokens), "c(Write <|channel|>analysis<|end|>.)");
}

#[test]
fn tags_of_other_formats_are_text() {
    let case = Case {
        controls: vocabulary(),
        ..Case::of(THINK)
    };
    let tool_call = id_of("<tool_call>").unwrap();
    assert_eq!(
        case.tokens([(PLAIN, "a"), (tool_call, "<tool_call>"), (13, "")]),
        "c(a<tool_call>)"
    );
}

// White space

#[test]
fn overlong_white_space_does_not_wait() {
    let space = " \u{3000}".repeat(MAX_HELD);
    for format in ALL {
        let text = format!("{space}<think>a{space}");
        let shown = parse(format, &text);
        assert_eq!(shown, format!("c({text})"));
    }
}

// Any text

/// Texts in which the formats' parts are frequent, whole and broken.
fn fragments() -> impl Strategy<Value = Vec<String>> {
    // Beside the tags.
    const PARTS: &[&str] = &[
        "<thin",
        "<|",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        ":",
        ",",
        ";",
        " ",
        "\n\n",
        "\u{3000}",
        "assistant",
        "analysis",
        "final",
        "commentary",
        "to=functions.f ",
        "{\"name\": \"f\", \"arguments\": {\"a\": ",
        "{\"arguments\": {}, \"name\": \"g\"}",
        "\"name\": ",
        "\"parameters\": \"",
        "\\ud83e",
        "\\udd80",
        "\\u0",
        "null",
        "f",
        "é🦀",
        "1",
    ];
    let parts = [TAGS.as_slice(), PARTS].concat();
    vec(prop::sample::select(parts).prop_map(str::to_owned), 0..24)
}

/// `text` cut at `cuts`, where characters are.
fn cut<'t>(text: &'t str, cuts: &[usize]) -> Vec<&'t str> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    ends.retain(|&end| text.is_char_boundary(end));
    ends.extend([0, text.len()]);
    ends.sort_unstable();
    ends.windows(2)
        .map(|ends| &text[ends[0]..ends[1]])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_cutting_gives_the_same_pieces(
        parts in fragments(),
        cuts in vec(0usize..400, 0..12),
        prompt in prop::sample::select(vec!["", "<think>\n", "</think>", START_PROMPT]),
        with_tools in any::<bool>(),
    ) {
        let text = parts.concat();
        for format in ALL {
            let case = Case { prompt, with_tools, ..Case::of(format) };
            let pieces = case.tokens(cut(&text, &cuts).into_iter().map(|text| (PLAIN, text)));
            prop_assert_eq!(pieces, case.parse(&text));
        }
    }

    #[test]
    fn any_cutting_between_control_tokens_gives_the_same_pieces(
        parts in fragments(),
        cuts in vec(0usize..100, 0..4),
    ) {
        for format in ALL {
            let case = Case { controls: vocabulary(), ..Case::of(format) };
            let tags = active_tags(format.reasoning, format.tools, format == HARMONY);
            let is_tag = |part: &str| tags.iter().any(|tag| tag.name() == part);
            let id = |part: &str| id_of(part).filter(|_| is_tag(part)).unwrap_or(PLAIN);
            let whole = case.tokens(parts.iter().map(|part| (id(part), part.as_str())));
            let pieces = parts.iter().flat_map(|part| match id(part) {
                PLAIN => cut(part, &cuts).into_iter().map(|text| (PLAIN, text)).collect(),
                id => vec![(id, "")],
            });
            prop_assert_eq!(case.tokens(pieces), whole);
        }
    }

    #[test]
    fn text_without_tags_is_content(text in r"[a-zé🦀{}:, \n<>|\[\]]{0,80}") {
        for format in ALL {
            let expected = if text.is_empty() { String::new() } else { format!("c({text})") };
            prop_assert_eq!(parse(format, &text), expected);
        }
    }

    #[test]
    fn nothing_but_white_space_and_tags_is_lost_where_no_call_is(parts in fragments()) {
        let text = parts.concat();
        for format in [HERMES, LLAMA, MISTRAL] {
            let shown = parse(format, &text);
            if !shown.contains("[0](") && !text.is_empty() {
                prop_assert_eq!(shown, format!("c({text})"));
            }
        }
    }
}

#[test]
fn a_long_adversarial_text_is_kept_only_as_far_as_it_may_be_a_call() {
    const MEGABYTE: usize = 1 << 20;
    let cases = [
        (THINK, "<"),
        (THINK, "<think>"),
        (THINK, "\n"),
        (QWEN, "<tool_cal"),
        (HERMES, "<tool_cal"),
        (HERMES, "<tool_call>"),
        (HERMES, "{\"name\":"),
        (HERMES, "<tool_call>{\"name\":"),
        (HERMES, "<tool_call>{\"name\":\""),
        (HERMES, "<tool_call>{\"arguments\":{}"),
        (HERMES, "\u{3000}"),
        (LLAMA, "{\"name\":"),
        (LLAMA, " "),
        (LLAMA, "<|python_tag|>"),
        (MISTRAL, "[TOOL_CALLS"),
        (MISTRAL, "[TOOL_CALLS]"),
        (MISTRAL, "[TOOL_CALLS][ {"),
        (MINISTRAL, "[TOOL_CALLS]f"),
        (HARMONY, "<|channel|>"),
        (HARMONY, "<|start|>assistant to=functions.f"),
        (HARMONY, "to="),
    ];
    for (format, text) in cases {
        let mut parser = Case::of(format).parser();
        let (mut out, mut put_out) = (Vec::new(), 0);
        for _ in 0..MEGABYTE / text.len() {
            parser.push(PLAIN, text, &mut out);
            // The beginning of a tag, of a call and of its name, and white space.
            assert!(parser.held() <= 3 * MAX_HELD, "{text} {format:?}");
            put_out += size(&mut out);
        }
        parser.finish(&mut out);
        // Every character comes out once at most.
        assert!(put_out + size(&mut out) <= MEGABYTE, "{text} {format:?}");
    }
}

/// Bytes of text in `out`, which is emptied.
fn size(out: &mut Vec<Piece>) -> usize {
    let text = |piece: Piece| match piece {
        Piece::Content(text) | Piece::Reasoning(text) | Piece::Arguments { text, .. } => text.len(),
        Piece::ToolCall { name, .. } => name.len(),
    };
    out.drain(..).map(text).sum()
}

#[test]
fn each_character_of_a_long_call_is_looked_at_once() {
    // Arguments that wait for their name are the most that is kept: twice their size.
    let begin = "<tool_call>{\"arguments\": {\"a\": \"";
    let body = "<tool_call".repeat(100_000);
    let mut parser = Case::of(HERMES).parser();
    let mut out = Vec::new();
    parser.push(PLAIN, begin, &mut out);
    for at in (0..body.len()).step_by(1000) {
        parser.push(PLAIN, &body[at..at + 1000], &mut out);
        assert!(parser.held() <= 2 * (begin.len() + at + 1000));
    }
    parser.push(PLAIN, "\"}, \"name\": \"f\"}", &mut out);
    assert_eq!(show(&out), format!("f[0]({{\"a\": \"{body}\"}})"));
}
