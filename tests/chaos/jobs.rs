//! The jobs of the campaign, and what they say when nothing disturbs them.

use orcd_tests::{Job, Model, Starter, WorkerHarness};
use serde_json::{Value, json};

use crate::chunks::{self, Asked};
use crate::client::{self, Received};
use crate::judge::{Ending, Token};
use crate::rng::Rng;

/// A request, in one of the dialects.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Of `/execute`, whose streams can be resumed.
    Native(Job),
    /// Of OpenAI's routes.
    OpenAi(Asked),
}

impl Ask {
    /// For people.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Native(job) => job.json(),
            Self::OpenAi(asked) => asked.body.clone(),
        }
    }
}

/// A request with its undisturbed stream.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) ask: Ask,
    pub(crate) tokens: Vec<Token>,
    pub(crate) ending: Ending,
}

/// Jobs for one model.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Of all sorts, of `/execute`.
    pub(crate) jobs: Vec<Known>,
    /// Of OpenAI's routes.
    pub(crate) asked: Vec<Known>,
    /// With a long prompt and little to say.
    pub(crate) prompts: Vec<Known>,
}

/// With a beginning of some pages that they share, more or less of it.
const SHARED: &str = "A song of the sea, of the sand and of the wind in the morning. ";

/// Prompts are longer than what a step takes of them.
const LONG_PROMPT: &str = "the sea and the wind ";

impl Pool {
    /// Draws the jobs and runs each of them once on a service that nothing happens to.
    pub(crate) fn prepare(model: &Model, rng: &mut Rng) -> Self {
        let service = Starter::new(model.clone()).alone().start();
        let native = |jobs: Vec<Job>| jobs.into_iter().map(Ask::Native).collect();
        let mut jobs = undisturbed(&service, native(jobs(model, rng)));
        let with_stop: Vec<_> = jobs.iter().step_by(4).filter_map(stopped).collect();
        jobs.extend(undisturbed(&service, native(with_stop)));
        let asked = undisturbed(&service, asked(model, rng));
        let long = |n: u64| {
            Job::new(
                "",
                &LONG_PROMPT.repeat(40 + 5 * usize::try_from(n).unwrap()),
            )
            .set("template", false)
            .set("max_tokens", 8 + n)
            .set("seed", n)
        };
        let prompts = undisturbed(&service, native((0..4).map(long).collect()));
        jobs.extend_from_slice(&prompts);
        Self {
            jobs,
            asked,
            prompts,
        }
    }
}

/// Mixed parameters; most are short, so that jobs finish between faults.
fn jobs(model: &Model, rng: &mut Rng) -> Vec<Job> {
    let asked = [
        "Write a haiku about the sea",
        "Count to thirty",
        "Write three haiku about snow",
        "Tell me a fable",
        "Greet me in twenty languages 🦀",
        "Name the planets with emoji",
    ];
    let raw = ["in the morning", "wörter über bäume", "x", "日本の 俳句 🌊"];
    let job = |n: u64, rng: &mut Rng| {
        let prompt = match model {
            Model::Haiku => rng.pick(&asked),
            _ => rng.pick(&raw),
        };
        let shared = match n % 5 {
            0 => SHARED.repeat(6),
            3 => SHARED.repeat(4),
            _ => String::new(),
        };
        let job = Job::new("", &(shared + prompt)).set("seed", n);
        let longest = if rng.chance(20) { 200 } else { 80 };
        let job = job.set("max_tokens", 20 + rng.below(longest - 19));
        let job = match n % 6 {
            0 => job.set("temperature", 0),
            1 => job.set("temperature", 0.8),
            2 => job.set("temperature", 0.8).set("top_k", 40),
            3 => job.set("temperature", 0.8).set("top_p", 0.9),
            4 => job.set("temperature", 0.8).set("min_p", 0.02),
            _ => job.set("temperature", 0.8).set("top_k", 64),
        };
        match n % 4 {
            1 => job.set("repetition_penalty", 1.2),
            2 => (job.set("frequency_penalty", 0.4)).set("logit_bias", json!({"5": 2, "9": -100})),
            3 => job.set("presence_penalty", 0.8),
            _ => job,
        }
    };
    (0..20).map(|n| job(n, rng)).collect()
}

/// The same job with a stop sequence that it meets on its way; `None` if its text is too short.
fn stopped(known: &Known) -> Option<Job> {
    let text: String = known.tokens.iter().filter_map(text_of).collect();
    let chars: Vec<char> = text.chars().collect();
    let from = chars.len() * 2 / 3;
    let stop: String = chars.get(from..from + 4)?.iter().collect();
    match &known.ask {
        Ask::Native(job) => Some(job.clone().set("stop", vec![stop])),
        Ask::OpenAi(_) => None,
    }
}

fn text_of(token: &Token) -> Option<String> {
    let data = token.raw.lines().find_map(|l| l.strip_prefix("data: "))?;
    let data: serde_json::Value = serde_json::from_str(data).ok()?;
    data["t"].as_str().map(str::to_owned)
}

/// Runs jobs, some at a time, and remembers what they say.
fn undisturbed(service: &WorkerHarness, asks: Vec<Ask>) -> Vec<Known> {
    let mut known = Vec::new();
    for some in asks.chunks(6) {
        let received: Vec<Received> = std::thread::scope(|scope| {
            let running: Vec<_> = (some.iter().enumerate())
                .map(|(n, ask)| {
                    scope.spawn(move || run(service, ask, &format!("undisturbed-{n}"), None))
                })
                .collect();
            running.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (job, received) in some.iter().zip(received) {
            assert_eq!(received.strictly, Ok(()), "{:?}", job.json());
            assert!(
                matches!(received.ending, Ending::End(..)),
                "{:?}",
                received.ending
            );
            assert_eq!(
                received.replays,
                0,
                "something did disturb {:?}",
                job.json()
            );
            known.push(Known {
                ask: job.clone(),
                tokens: received.tokens,
                ending: received.ending,
            });
        }
    }
    known
}

/// Runs a request to the end of its stream; `absence`, and the name of the job, only for `/execute`.
pub(crate) fn run(
    service: &WorkerHarness,
    ask: &Ask,
    name: &str,
    absence: client::Absence,
) -> Received {
    match ask {
        Ask::Native(job) => {
            let job = job.clone().named(name);
            let leaves = absence.is_some();
            let job = if leaves {
                job.set("on_disconnect", "continue")
            } else {
                job
            };
            client::run(service, &job, absence)
        }
        Ask::OpenAi(asked) => chunks::run(service, asked),
    }
}

/// Chats where the model has a template, else completions: one and two choices, tools, logprobs, stop sequences, and
/// every other one with a format, so that a quarter of all streams has one.
fn asked(model: &Model, rng: &mut Rng) -> Vec<Ask> {
    let chats = matches!(model, Model::Haiku);
    let one = |n: u64, rng: &mut Rng| {
        let mut body = json!({
            "stream": true,
            "stream_options": {"include_usage": true},
            "seed": n,
            "max_tokens": 12 + rng.below(60),
            "temperature": rng.pick(&[0.0, 0.8, 1.1]),
        });
        if chats {
            let question = rng.pick(&["Write a haiku about rain", "Greet me", "Count to ten 🦀"]);
            body["messages"] = json!([{"role": "user", "content": question}]);
        } else {
            body["prompt"] = json!(rng.pick(&["in the evening", "schöne wörter", "日本の"]));
        }
        if n.is_multiple_of(3) {
            body["n"] = json!(2);
        }
        match n % 4 {
            1 if chats => {
                body["tools"] = json!([{"type": "function", "function": {
                    "name": "weather", "description": "Tells the weather",
                    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
                }}]);
                // Of some a call is the whole output.
                if n % 8 == 5 {
                    body["tool_choice"] = json!("required");
                }
            }
            2 if chats => {
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(3);
            }
            2 => body["logprobs"] = json!(2),
            3 => body["stop"] = json!([" the", "\n\n"]),
            _ => {}
        }
        if n.is_multiple_of(2) {
            body["response_format"] = formats()[usize::try_from(n / 2 % 3).unwrap()].clone();
        }
        let path = if chats {
            "/v1/chat/completions"
        } else {
            "/v1/completions"
        };
        Ask::OpenAi(Asked { path, body })
    };
    (0..16).map(|n| one(n, rng)).collect()
}

/// One of each kind. None is over after a few tokens.
fn formats() -> [Value; 3] {
    let verse = json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 8},
            "lines": {"type": "array", "minItems": 3, "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "minLength": 12},
                    "beats": {"type": "integer", "minimum": 5, "maximum": 7},
                    "rhymes": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                },
                "required": ["text", "beats", "rhymes"],
            }},
        },
        "required": ["title", "lines"],
    });
    [
        json!({"type": "json_schema", "json_schema": {"name": "verse", "schema": verse}}),
        json!({"type": "regex", "pattern": "[A-Z][a-z]{2,8}(, [a-z]{2,9}){9,30}[.]"}),
        json!({"type": "lark", "grammar": "start: pair{9,40}\npair: WORD \"=\" NUMBER \";\"\nWORD: /[a-z]{2,6}/\nNUMBER: /[0-9]{1,4}/"}),
    ]
}
