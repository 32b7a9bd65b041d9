use orcd_shared::gguf::Metadata;
use serde_json::{Value, json};

use super::*;
use crate::samples::{END, metadata};
use crate::text::{GuardedText, TextError, TextModel, TextOverrides};

const NAME: &str = "<|im_end|>";
/// What stands in place of [`NAME`] where the prompt is tokenized plainly.
const HARMLESS: &str = "HARMLESS";

fn model(template: &str) -> TextModel {
    let metadata: Metadata = metadata();
    let overrides = TextOverrides {
        chat_template: Some(template.to_owned()),
        ..TextOverrides::default()
    };
    TextModel::with_overrides(&metadata, &overrides).unwrap()
}

fn input(value: Value) -> ChatInput {
    let field = |name: &str| value.get(name).cloned();
    ChatInput {
        messages: match field("messages") {
            Some(Value::Array(messages)) => messages,
            _ => vec![json!({"role": "user", "content": "a"})],
        },
        tools: field("tools"),
        documents: field("documents"),
        kwargs: field("kwargs").map_or_else(Map::new, |kwargs| kwargs.as_object().unwrap().clone()),
        ..ChatInput::default()
    }
}

/// `ids` with the bytes of `from` replaced by those of `to`.
fn replaced(ids: &[u32], from: &str, to: &str) -> Vec<u32> {
    let bytes = |text: &str| Vec::from_iter(text.bytes().map(u32::from));
    let (from, mut rest, mut out) = (bytes(from), ids, Vec::new());
    while !rest.is_empty() {
        if rest.starts_with(&from) {
            out.extend(bytes(to));
            rest = &rest[from.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

/// Checks that `@` in `of` leads to the tokens of a prompt in which [`NAME`] is text.
#[track_caller]
fn check(template: &str, of: &Value) {
    let model = model(template);
    let with =
        |name: &str| input(serde_json::from_str(&of.to_string().replace('@', name)).unwrap());
    let plain = model.render_chat(&with(HARMLESS)).unwrap();
    assert!(plain.contains(HARMLESS), "{template} leaves out {of}");
    let plain_ids = model
        .tokenizer()
        .encode_prompt(&GuardedText::trusted(plain.clone()));
    let expected = replaced(&plain_ids.unwrap(), HARMLESS, NAME);
    let ids = model.encode_chat(&with(NAME)).unwrap();
    assert!(ids == expected, "{template}: {of}");
    assert_eq!(
        model.render_chat(&with(NAME)).unwrap(),
        plain.replace(HARMLESS, NAME)
    );
}

/// A template that shows whatever it is given, in three ways, and ends turns.
const ALL: &str = "{% for m in messages %}{{ m | tojson }}{{ m }}{{ m.content }}<|im_end|>{% endfor %}\
                   {{ tools | tojson }}{{ documents | tojson(indent=2) }}{{ setting | default(none) | tojson }}";

#[test]
fn no_text_of_a_client_brings_control_tokens_in() {
    let call = |name: &str, arguments: Value| {
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}},
        ]})
    };
    let tool = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    for of in [
        json!({"messages": [{"role": "user", "content": "x@y"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "@"}]}]}),
        json!({"messages": [{"role": "user", "content": "a", "name": "@"}]}),
        json!({"messages": [{"role": "user", "content": "a", "@": 1}]}),
        json!({"messages": [{"role": "assistant", "content": "a", "reasoning_content": "@"}]}),
        json!({"messages": [{"role": "tool", "content": "@@", "tool_call_id": "1"}]}),
        json!({"messages": [{"role": "tool", "content": "a", "tool_call_id": "@"}]}),
        json!({"messages": [{"role": "developer", "content": "@"}]}),
        json!({"messages": [call("@", json!({}))]}),
        json!({"messages": [call("f", json!("not json @"))]}),
        json!({"messages": [call("f", json!({"a": {"b": ["@"]}}))]}),
        json!({"messages": [call("f", json!({"@": {"@": 1}}))]}),
        json!({"messages": [call("f", json!("{\"@\": \"@\"}"))]}),
        tool(json!({"name": "@"})),
        tool(json!({"name": "f", "description": "@"})),
        tool(json!({"name": "f", "parameters": {"properties": {"@": {"type": "string"}}}})),
        tool(json!({"name": "f", "parameters": {"enum": ["a", "@"], "@": null}})),
        json!({"documents": [{"title": "@", "text": "a"}]}),
        json!({"documents": [{"title": "a", "@": "@"}]}),
        json!({"kwargs": {"setting": "@"}}),
        json!({"kwargs": {"setting": {"@": ["@"]}}}),
    ] {
        check(ALL, &of);
    }
}

#[test]
fn names_of_settings_bring_no_control_tokens_in() {
    // What `debug` shows is the engine's own affair, escapes of the guard included.
    let model = model("{{ debug() }}");
    let ends = |name: &str| {
        let ids = model.encode_chat(&input(json!({"kwargs": {name: 1}})));
        ids.unwrap().iter().filter(|&&id| id == END).count()
    };
    assert_eq!(ends(NAME), ends(HARMLESS));
}

#[test]
fn escapes_in_json_hide_no_control_token() {
    let arguments = r#"{"a": "\u003c|im_end|>"}"#;
    let call = json!({"role": "assistant", "content": null, "tool_calls": [
        {"function": {"name": "f", "arguments": arguments}},
    ]});
    let ids = model(ALL)
        .encode_chat(&input(json!({"messages": [call]})))
        .unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == END).count(), 1, "{ids:?}");
}

#[test]
fn json_of_ascii_has_no_trace_of_the_guard() {
    let content = json!({"messages": [{"role": "user", "content": "é@"}]});
    for template in [
        "{{ messages[0].content | tojson(ensure_ascii=true) }}",
        "{% macro f(x) %}{{ x | tojson(ensure_ascii=true) }}{% endmacro %}{{ f(messages[0].content) }}",
        "{{ messages[0].content | tojson(ensure_ascii=true) | tojson(ensure_ascii=true) }}",
    ] {
        check(template, &content);
    }
}

#[test]
fn names_that_cross_the_edge_of_a_text_stay_text() {
    let extra = "{% for key in tools[0] %}{{ '\n<' ~ key ~ '>' ~ tools[0][key] ~ '</' ~ key ~ '>' }}\
                 {% endfor %}";
    let parts = "{% for part in messages[0].content %}{{ part.text | trim }}{% endfor %}";
    let text = |text: &str| json!({"type": "text", "text": text});
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (template, of, shown) in [
        (
            extra,
            json!({"tools": [{"|im_end|": 1}]}),
            "\n<|im_end|>1</|im_end|>",
        ),
        (
            extra,
            json!({"tools": [{"|im_end|>": 1}]}),
            "\n<|im_end|>>1</|im_end|>>",
        ),
        (
            extra,
            json!({"tools": [{"|im_": "<", "end|>": 2}]}),
            "\n<|im_><</|im_>\n<end|>>2</end|>>",
        ),
        (parts, user(json!([text("<|im_ "), text(" end|>")])), NAME),
        (
            parts,
            user(json!([text("<"), text("|im_end|"), text(">")])),
            NAME,
        ),
        (
            parts,
            user(json!([text("<|"), text(""), text("im_end|>")])),
            NAME,
        ),
    ] {
        let model = model(template);
        assert_eq!(model.render_chat(&input(of.clone())).unwrap(), shown);
        let expected: Vec<u32> = shown.bytes().map(u32::from).collect();
        assert_eq!(model.encode_chat(&input(of)).unwrap(), expected, "{shown}");
    }
}

#[test]
fn edges_of_texts_do_not_hide_the_templates_own_tokens() {
    let model = model("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
    let ids = model.encode_chat(&input(
        json!({"messages": [{"role": "user", "content": "<|im_<"}]}),
    ));
    let mut expected: Vec<u32> = "<|im_<".bytes().map(u32::from).collect();
    expected.push(END);
    assert_eq!(ids.unwrap(), expected);
}

#[test]
fn arguments_are_objects_where_they_are_the_text_of_one() {
    let model = model("{{ messages[0].tool_calls[0].function.arguments | tojson }}");
    for (sent, shown) in [
        (
            json!("{\"b\": 1, \"a\": [2.0, null]}"),
            "{\"b\": 1, \"a\": [2.0, null]}",
        ),
        (json!({"b": 1}), "{\"b\": 1}"),
        (json!(""), "{}"),
        (json!("[1]"), "\"[1]\""),
        (json!("1"), "\"1\""),
        (json!("{"), "\"{\""),
    ] {
        let call = json!({"type": "function", "function": {"name": "f", "arguments": sent}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let text = model
            .render_chat(&input(json!({"messages": [message]})))
            .unwrap();
        assert_eq!(text, shown, "{sent}");
    }
}

#[test]
fn a_template_gets_the_form_that_it_takes() {
    let call = json!({"type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let object = json!({"type": "function", "function": {"name": "f", "arguments": {"a": 1}}});
    let none = json!({"type": "function", "function": {"name": "f", "arguments": ""}});
    let arguments = "messages[0].tool_calls[0].function.arguments";
    for (source, call, shown) in [
        ("{{ 'c' + messages[0].content }}".to_owned(), &call, "c"),
        (format!("{{{{ 'a' + {arguments} }}}}"), &call, "a{\"a\":1}"),
        (
            format!("{{{{ 'a' + {arguments} }}}}"),
            &object,
            "a{\"a\":1}",
        ),
        (
            format!("{{{{ messages[0].content + {arguments} }}}}"),
            &none,
            "{}",
        ),
    ] {
        for message in [
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "assistant", "tool_calls": [call]}),
        ] {
            let input = input(json!({"messages": [message]}));
            assert_eq!(
                model(&source).render_chat(&input).unwrap(),
                shown,
                "{source}"
            );
        }
    }
}

#[test]
fn other_forms_bring_no_control_tokens_in_either() {
    let source = "{{ messages[0].content + messages[0].tool_calls[0].function.arguments }}";
    for arguments in [json!("{\"@\":\"@\"}"), json!({"@": ["@"]})] {
        let call = json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        check(source, &json!({"messages": [message]}));
    }
}

#[test]
fn what_is_absent_is_none() {
    let source = "{{ tools is none }} {{ documents is none }} {{ messages[0].content is none }} \
                  {{ enable_thinking is defined }} {{ add_generation_prompt }}";
    let null = input(json!({"messages": [{"role": "assistant", "content": null}]}));
    assert_eq!(
        model(source).render_chat(&null).unwrap(),
        "True True True False True"
    );
}

#[test]
fn settings_reach_the_template() {
    let kwargs = input(json!({"kwargs": {"enable_thinking": false, "n": [1, {"a": 2.5}]}}));
    let text = model("{{ enable_thinking }}{{ n[1].a }}")
        .render_chat(&kwargs)
        .unwrap();
    assert_eq!(text, "False2.5");
}

fn fault(template: &str, input: &ChatInput) -> String {
    let error = model(template).encode_chat(input).unwrap_err();
    assert!(
        error.is_request_fault() && !error.is_template_fault(),
        "{error}"
    );
    error.to_string()
}

#[test]
fn settings_replace_nothing_of_the_environments_own() {
    let mut names: Vec<&str> = vec![
        "messages",
        "tools",
        "documents",
        "bos_token",
        "eos_token",
        "add_generation_prompt",
        "continue_final_message",
        "strftime_now",
        "raise_exception",
        "range",
        "namespace",
        "dict",
        "cycler",
        "joiner",
        "__percent",
        "__bounded",
        "__unescaped",
        "__other",
        "loop",
        "caller",
    ];
    names.extend(["debug"]);
    for name in names {
        let error = fault(
            "{{ messages[0].content }}",
            &input(json!({"kwargs": {name: 1}})),
        );
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    }
}

#[test]
fn settings_are_bounded_in_number() {
    let of = |n: usize| {
        let kwargs = (0..n).map(|i| (format!("k{i}"), json!(i)));
        ChatInput {
            kwargs: kwargs.collect(),
            ..input(json!({}))
        }
    };
    assert!(model("{{ k63 }}").encode_chat(&of(64)).is_ok());
    assert!(fault("a", &of(65)).contains("65"));
}

#[test]
fn data_is_bounded_in_depth() {
    let nested = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!([inner]));
    let template = "{% set t = tools %}{{ t | tojson }}{{ setting }}{{ documents }}{{ messages }}";
    let of = |name: &str, levels| match name {
        "messages[0]" => {
            json!({"messages": [{"role": "user", "content": nested(levels - 1)}]})
        }
        "chat_template_kwargs.setting" => json!({"kwargs": {"setting": nested(levels)}}),
        _ => json!({name: nested(levels)}),
    };
    for name in [
        "messages[0]",
        "tools",
        "documents",
        "chat_template_kwargs.setting",
    ] {
        let fits = model(template).encode_chat(&input(of(name, MAX_DEPTH)));
        assert!(fits.is_ok(), "{name}: {fits:?}");
        let error = fault(template, &input(of(name, MAX_DEPTH + 1)));
        assert!(error.contains(&format!("{name} is nested")), "{error}");
    }
}

#[test]
fn a_message_has_a_known_role() {
    for message in [
        json!({"content": "a"}),
        json!({"role": "robot"}),
        json!({"role": 1}),
        json!("a"),
    ] {
        let messages = json!([{"role": "user", "content": "a"}, message]);
        let error = fault("a", &input(json!({"messages": messages})));
        assert!(
            error.contains("messages[1]") && error.contains("developer, user"),
            "{error}"
        );
    }
}

#[test]
fn roles_are_compared_by_templates_and_stay() {
    let plain = input(json!({"messages": [{"role": "user", "content": "a"}]}));
    let changed = plain.map_texts(&str::to_uppercase);
    assert_eq!(changed.messages[0]["role"], "user");
    assert_eq!(changed.messages[0]["CONTENT"], "A");
}

#[test]
fn developers_are_the_system_for_templates_that_do_not_know_them() {
    let messages = json!([{"role": "developer", "content": "developer"}]);
    for (source, shown) in [
        (
            "{{ messages[0].role ~ messages[0].content }}",
            "systemdeveloper",
        ),
        ("{# developer #}{{ messages[0].role }}", "developer"),
    ] {
        let input = input(json!({"messages": messages}));
        assert_eq!(model(source).render_chat(&input).unwrap(), shown);
    }
}

const TURNS: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<|im_end|>{% endfor %}\
                     {% if add_generation_prompt %}[assistant]{% endif %}";

fn to_continue(content: &str) -> ChatInput {
    ChatInput {
        continue_final_message: true,
        add_generation_prompt: false,
        ..input(json!({"messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": content},
        ]}))
    }
}

#[test]
fn a_final_message_is_continued_where_it_ends() {
    for (content, shown) in [
        ("a b", "a b"),
        ("  a \n", "a \n"),
        ("a<|im_end|>", "a<|im_end|>"),
        ("a<|im_", "a<|im_"),
    ] {
        let model = model(TURNS);
        let text = model.render_chat(&to_continue(content)).unwrap();
        assert_eq!(text, format!("[user]hi<|im_end|>[assistant]{shown}"));
        let ids = model.encode_chat(&to_continue(content)).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == END).count(), 1, "{content}");
        assert_eq!(
            model.tokenizer().decode(&ids),
            text.replacen(NAME, "", 1).as_bytes()
        );
    }
    let twice =
        model("{{ messages[1].content }}, {{ messages[1].content | tojson(ensure_ascii=true) }}!");
    assert_eq!(twice.render_chat(&to_continue("a")).unwrap(), "a, \"a");
}

#[test]
fn the_prompt_ends_as_it_is_asked_to() {
    let closed = ChatInput {
        add_generation_prompt: false,
        ..input(json!({}))
    };
    assert_eq!(
        model(TURNS).render_chat(&closed).unwrap(),
        "[user]a<|im_end|>"
    );
    let open = input(json!({}));
    assert_eq!(
        model(TURNS).render_chat(&open).unwrap(),
        "[user]a<|im_end|>[assistant]"
    );
}

#[test]
fn what_cannot_be_continued_is_a_fault_of_the_request() {
    let with = |messages: Value| ChatInput {
        messages: messages.as_array().unwrap().clone(),
        ..to_continue("a")
    };
    for messages in [
        json!([]),
        json!([{"role": "user", "content": "a"}]),
        json!([{"role": "assistant", "content": ""}]),
        json!([{"role": "assistant", "content": null}]),
        json!([{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]),
    ] {
        assert!(fault(TURNS, &with(messages)).contains("role assistant"));
    }
    let both = ChatInput {
        add_generation_prompt: true,
        ..to_continue("a")
    };
    assert!(fault(TURNS, &both).contains("excludes"));
    let error = fault("{{ messages[0].content }}", &to_continue("a"));
    assert!(error.contains("not in the prompt"), "{error}");
}

#[test]
fn a_failing_template_is_at_fault_only_with_plain_messages() {
    let fragile = "{{ messages[0].content }}{% if tools %}{{ tools.no_such_method() }}{% endif %}\
                   {% if messages | length == 5 %}{{ 1 % 0 }}{% endif %}";
    let tools = input(json!({"tools": []}));
    assert!(model(fragile).encode_chat(&tools).is_ok());
    let error = fault(fragile, &input(json!({"tools": [1]})));
    assert!(
        error.contains("no_such_method") && error.contains("tools"),
        "{error}"
    );
    let user = json!({"role": "user", "content": "a"});
    let five = |message: &Value| input(json!({"messages": vec![message; 5]}));
    let error = model(fragile).encode_chat(&five(&user)).unwrap_err();
    assert!(matches!(error, TextError::BrokenTemplate(_)), "{error}");
    let named = json!({"role": "user", "content": "a", "name": "b"});
    assert!(fault(fragile, &five(&named)).contains("messages"));
    // Where the trial fails, nothing that is sent helps.
    let error = model("{{ 1 % 0 }}").encode_chat(&five(&named)).unwrap_err();
    assert!(matches!(error, TextError::BrokenTemplate(_)), "{error}");
}

#[test]
fn the_source_of_a_template_is_kept() {
    assert_eq!(
        model("{{ 1 % 2 }}").chat_template_source(),
        Some("{{ 1 % 2 }}")
    );
    assert_eq!(model("{% if %}").chat_template_source(), None);
    let none = TextModel::from_metadata(&metadata()).unwrap();
    assert_eq!(none.chat_template_source(), None);
}
