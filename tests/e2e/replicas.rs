//! Any replica goes on with what another one began: the same bytes, numbered on.

use nix::sys::signal::Signal;
use orcd_tests::sse::{Event, Kind};
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness};
use serde_json::{Value, json};

/// The same request for another service, by a client that has these events.
fn going_on(job: &Job, events: &[Event]) -> Job {
    let Some(Kind::Started {
        seed,
        fingerprint,
        request_digest,
        template_time,
        ..
    }) = events.first().map(|event| &event.kind)
    else {
        panic!("no started in {events:?}");
    };
    let resume = json!({
        "ids": ids(events),
        "fingerprint": fingerprint,
        "request_digest": request_digest,
        "template_time": template_time,
    });
    job.clone().set("seed", *seed).set("resume", resume)
}

fn ids(events: &[Event]) -> Vec<u64> {
    let id = |event: &Event| match event.kind {
        Kind::Token { id, .. } => Some(id),
        _ => None,
    };
    events.iter().filter_map(id).collect()
}

/// The bytes of events, without what a clock or a cache says in the last one.
fn bytes(events: &[Event]) -> Vec<String> {
    let same = |event: &Event| {
        let Kind::End(_) = event.kind else {
            return event.raw.clone();
        };
        let (head, data) = event.raw.split_once("data: ").unwrap();
        let mut data: Value = serde_json::from_str(data).unwrap();
        for name in [
            "decode_time_ms",
            "engine_time_us",
            "cached_tokens",
            "replays",
        ] {
            data[name] = json!(0);
        }
        format!("{head}data: {data}")
    };
    events.iter().map(same).collect()
}

/// The rest of a stream of which the client has so many events.
#[track_caller]
fn rest(service: &WorkerHarness, job: &Job, uncut: &Transcript, events: usize) -> Transcript {
    let known = &uncut.events[..events];
    let stream = service.try_go_on(&going_on(job, known), events - 1);
    stream
        .unwrap_or_else(|reply| panic!("cut after {events} events: {}", reply.text()))
        .finish()
}

#[track_caller]
fn goes_on_from_every_event(
    first: &WorkerHarness,
    second: &WorkerHarness,
    job: &Job,
) -> Transcript {
    let uncut = first.run(job);
    for events in 1..uncut.events.len() {
        let rest = rest(second, job, &uncut, events);
        assert_eq!(
            bytes(&rest.events[1..]),
            bytes(&uncut.events[events..]),
            "cut after {events} events"
        );
    }
    uncut
}

/// Two services for the same model that differ in all that changes no bit. Where a GPU is under test, the first is on the CPU
/// all the same.
fn pair(model: Model) -> [WorkerHarness; 2] {
    let second = Starter::new(model.clone()).flag("--parallel", 1);
    let second = second.flag("--prefix-cache", "off").flag("--threads", 1);
    [Starter::new(model).device("cpu").start(), second.start()]
}

#[test]
fn killed_service_in_mid_stream_changes_no_byte() {
    let [first, second] = pair(Model::Slow);
    let job = Job::lasting("a", 60);
    let uncut = second.run(&job);
    let mut stream = first.execute(&job);
    stream.read_tokens(17);
    let worker = first.worker();
    first.signal(Signal::SIGKILL);
    worker.signal(Signal::SIGKILL);
    // What is on its way comes, and then no terminal event.
    while stream.try_read().is_ok_and(|more| more) {}
    let known = stream.so_far().events.clone();
    assert!(known.len() < uncut.events.len(), "the stream was over");
    let rest = second.try_go_on(&going_on(&job, &known), known.len() - 1);
    let rest = rest.unwrap_or_else(|reply| panic!("{}", reply.text()));
    let rest = rest.finish();
    let joined: Vec<_> = known.iter().chain(&rest.events[1..]).cloned().collect();
    assert_eq!(bytes(&joined[1..]), bytes(&uncut.events[1..]));
}

#[test]
fn a_stream_goes_on_from_every_event() {
    let [first, second] = pair(Model::Tiny);
    // Hot: half of the vocabulary are single bytes, so that characters are cut in their middle.
    let hot = Job::new("hot", "x").set("seed", 2).set("temperature", 2);
    let hot = hot.set("max_tokens", 60).set("repetition_penalty", 1.3);
    let uncut = goes_on_from_every_event(&first, &second, &hot);
    assert!(uncut.pieces().contains(&""), "{:?}", uncut.pieces());
    assert_eq!(uncut.end().stop_reason, "MAX_TOKENS");
    // What may begin a stop sequence is held back, and one is complete in the end.
    let text = uncut.text();
    let stop: String = text
        .chars()
        .skip(text.chars().count() - 8)
        .take(5)
        .collect();
    let stopped = hot.named("stopped").set("stop", stop);
    let uncut = goes_on_from_every_event(&first, &second, &stopped);
    assert_eq!(uncut.end().stop_reason, "STOP_SEQUENCE");
    assert!(uncut.pieces().contains(&""), "{:?}", uncut.pieces());
    // A matcher is rebuilt, and penalties count what came before.
    let schema = json!({"type": "json_schema", "schema": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "word": {"type": "string", "maxLength": 12}},
        "required": ["n", "word"],
        "additionalProperties": false,
    }});
    let guided = Job::new("guided", "x").set("seed", 5).set("max_tokens", 80);
    let guided = guided.set("frequency_penalty", 0.5).set("logprobs", 2);
    goes_on_from_every_event(&first, &second, &guided.set("response_format", schema));
}

#[test]
fn a_chat_goes_on_to_its_end_token() {
    let [first, second] = pair(Model::Haiku);
    let job = Job::chat("a", &[("user", "Count to five")]).set("temperature", 0);
    let uncut = goes_on_from_every_event(&first, &second, &job);
    assert_eq!(uncut.end().stop_reason, "EOS");
    // Its id, which was no event, may stand behind the others.
    let tokens = uncut.events.len() - 2;
    let mut ended = going_on(&job, &uncut.events[..=tokens]).json();
    let end = end_token(&first);
    ended["resume"]["ids"]
        .as_array_mut()
        .unwrap()
        .push(end.into());
    let ended = job
        .clone()
        .set("seed", ended["seed"].clone())
        .set("resume", ended["resume"].clone());
    let rest = second.try_go_on(&ended, tokens).unwrap().finish();
    assert_eq!(bytes(&rest.events[1..]), bytes(&uncut.events[tokens + 1..]));
}

fn end_token(service: &WorkerHarness) -> u64 {
    let body = json!({"prompt": "<|im_end|>"});
    let reply = service.post("/tokenize", &body).json();
    reply["tokens"][0].as_u64().unwrap()
}

#[test]
fn the_whole_answer_is_that_of_an_uncut_request() {
    let [first, second] = pair(Model::Tiny);
    let job = Job::lasting("a", 20);
    let uncut = first.run(&job);
    let whole = going_on(&job, &uncut.events[..8]).set("stream", false);
    let reply = second.post("/execute", &whole.json()).json();
    assert_eq!(reply["text"], uncut.text());
    assert_eq!(reply["ids"], json!(uncut.ids()));
    assert_eq!(reply["tokens_out"], 20);
    // Events that are kept are all events.
    let kept = going_on(&job, &uncut.events[..8]).set("on_disconnect", "continue");
    second.try_go_on(&kept, 7).unwrap().finish();
    let again = second.resume("a", None).unwrap().finish();
    assert_eq!(bytes(&again.events[1..]), bytes(&uncut.events[1..]));
}

#[test]
fn what_would_not_go_on_the_same_is_refused() {
    let [first, second] = pair(Model::Tiny);
    let job = Job::lasting("a", 20);
    let uncut = first.run(&job);
    let good = going_on(&job, &uncut.events[..8]);
    let with = |name: &str, value: Value| {
        let mut resume = good.json()["resume"].clone();
        resume[name] = value;
        good.clone().set("resume", resume)
    };
    let mismatch = (409, "FINGERPRINT_MISMATCH".to_owned());
    for job in [
        with("fingerprint", json!("0".repeat(32))),
        with("request_digest", json!("0".repeat(32))),
        with("template_time", json!("2020-01-01T00:00:00+00:00")),
        good.clone().set("seed", 2),
        good.clone().set("prompt", "y"),
        good.clone().set("temperature", 0.5),
        good.clone().set("max_tokens", 21),
        good.clone().set("stop", "z"),
        good.clone().set("logprobs", 1),
    ] {
        assert_eq!(second.refusal(&job).refusal(), mismatch, "{}", job.json());
    }
    let invalid = (400, "INVALID_REQUEST".to_owned());
    let mut beyond = uncut.ids();
    beyond.push(1);
    for job in [
        with("ids", json!([1 << 20])),
        with("ids", json!([-1])),
        with("ids", json!("1")),
        with("ids", Value::Null),
        with("ids", json!(beyond)),
        with("template_time", json!("yesterday")),
        with("other", json!(1)),
        good.clone().set("resume", 1),
        good.clone().set("seed", Value::Null),
        good.clone().set("stream", false).set("logprobs", 1),
    ] {
        assert_eq!(second.refusal(&job).refusal(), invalid, "{}", job.json());
    }
    // Another last token would be another text.
    let mut ids = ids(&uncut.events[..8]);
    *ids.last_mut().unwrap() ^= 1;
    let other = with("ids", json!(ids));
    let stream = second.try_go_on(&other, 7).unwrap().finish();
    assert_eq!(stream.error().code, "REPLAY_DIVERGED");
}

#[test]
fn another_model_or_template_has_another_fingerprint() {
    let fingerprint = |service: &WorkerHarness| {
        let stream = service.run(&Job::lasting("a", 1));
        let Kind::Started { fingerprint, .. } = &stream.events[0].kind else {
            panic!("{:?}", stream.events);
        };
        fingerprint.clone()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{{ messages[0].content }}").unwrap();
    let templated = Starter::new(Model::Tiny).flag("--chat-template", file.path().display());
    let longer = Starter::new(Model::Tiny).flag("--context", 128);
    let [tiny, same] = pair(Model::Tiny).map(|service| fingerprint(&service));
    assert_eq!(tiny, same);
    assert_eq!(tiny, fingerprint(&longer.start()));
    let others = [
        fingerprint(&templated.start()),
        fingerprint(&WorkerHarness::start(Model::Llama)),
    ];
    assert!(!others.contains(&tiny) && others[0] != others[1]);
}

/// The chunks of a stream in OpenAI's form, without what a clock says.
#[track_caller]
fn chunks(service: &WorkerHarness, path: &str, body: &Value) -> Vec<Value> {
    let reply = service.post(path, body);
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let text = reply.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut data: Vec<_> = data.collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    let chunk = |data: &str| {
        let mut chunk: Value = serde_json::from_str(data).unwrap();
        chunk.as_object_mut().unwrap().remove("created");
        chunk
    };
    data.into_iter().map(chunk).collect()
}

/// The same request for another service, by a client that has these chunks.
fn going_on_with(body: &Value, known: &[Value]) -> Value {
    let choices = known.iter().map(|chunk| &chunk["choices"][0]);
    let ids = choices.filter_map(|choice| choice["token_ids"].as_array());
    let ids: Vec<_> = ids.flatten().cloned().collect();
    let mut body = body.clone();
    body["seed"] = known[0]["seed"].clone();
    body["resume"] = known[0]["resume"].clone();
    body["resume"]["ids"] = ids.into();
    body
}

#[test]
fn streams_in_openais_form_go_on_from_every_chunk() {
    let [first, second] = pair(Model::Haiku);
    let asks = json!([{"role": "user", "content": "Count to five"}]);
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "word": {"type": "string", "maxLength": 8}},
        "required": ["n", "word"],
        "additionalProperties": false,
    }}});
    let bodies = [
        (
            "/v1/chat/completions",
            json!({"messages": asks, "temperature": 0.5}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": asks, "logprobs": true, "top_logprobs": 2}),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": asks, "tools": [tool], "tool_choice": "required", "max_tokens": 60}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "in the morning", "max_tokens": 30, "logprobs": 1, "temperature": 2}),
        ),
    ];
    for (path, mut body) in bodies {
        body["stream"] = true.into();
        body["return_token_ids"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        body["cache"] = false.into();
        let uncut = chunks(&first, path, &body);
        assert!(uncut.len() > 5, "{uncut:?}");
        // The last chunk has the usage, and with the one before it the output is over.
        for known in 1..uncut.len() - 1 {
            let rest = chunks(&second, path, &going_on_with(&body, &uncut[..known]));
            assert_eq!(rest, uncut[known..], "{path} after {known}");
        }
        let mut whole = going_on_with(&body, &uncut[..3]);
        for name in ["stream", "stream_options", "logprobs", "top_logprobs"] {
            whole.as_object_mut().unwrap().remove(name);
        }
        if body.get("logprobs").is_none() {
            let reply = second.post(path, &whole).json();
            assert_eq!(
                reply["choices"][0]["finish_reason"],
                uncut[uncut.len() - 2]["choices"][0]["finish_reason"]
            );
        }
    }
}

#[test]
fn what_is_not_one_output_does_not_go_on() {
    let service = WorkerHarness::start(Model::Haiku);
    let mut body = json!({"prompt": "in the morning", "max_tokens": 5});
    body["stream"] = true.into();
    body["return_token_ids"] = true.into();
    let known = chunks(&service, "/v1/completions", &body);
    let good = going_on_with(&body, &known[..3]);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        service.post("/v1/completions", &body)
    };
    assert_eq!(with("n", json!(2)).status(), 400);
    assert_eq!(with("prompt", json!(["a", "b"])).status(), 400);
    assert_eq!(with("seed", Value::Null).status(), 400);
    let other = with("temperature", json!(0.3));
    assert_eq!(other.status(), 409);
    assert_eq!(other.json()["error"]["code"], "fingerprint_mismatch");
    let responses = json!({"input": "a", "resume": good["resume"]});
    assert_eq!(service.post("/v1/responses", &responses).status(), 400);
    body["n"] = 2.into();
    let two = chunks(&service, "/v1/completions", &body);
    assert!(two.iter().all(|chunk| chunk.get("resume").is_none()));
}
