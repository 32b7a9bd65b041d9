//! The clients that ship, against two services of which one is lost.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use orcd_tests::{Job, Model, WorkerHarness, paths, report};
use serde_json::{Value, json};

/// Prints each item of a stream on a line of its own: of the method and the body in the arguments.
const SCRIPT: &str = "
import json, sys
from orcd_client import JobFailed, Replicas
urls, method, body = sys.argv[1:]
try:
    for item in getattr(Replicas(urls.split(','), rounds=2), method)(json.loads(body)):
        print(json.dumps(item), flush=True)
except JobFailed as failed:
    print(json.dumps({'failed': failed.code}))
";

/// The lines of a client with these services. `after` is called with each line's number.
fn run(urls: &str, method: &str, body: &Value, mut after: impl FnMut(usize)) -> Option<Vec<Value>> {
    let folder = paths::repository().join("clients/python");
    if !folder.is_dir() {
        report::skipped(&format!("{} is not here", folder.display()));
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-B", "-c", SCRIPT, urls, method, &body.to_string()]);
    let child = command.env("PYTHONPATH", folder).stdout(Stdio::piped());
    let mut child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            report::skipped(&format!("python3 does not run: {error}"));
            return None;
        }
    };
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = |(at, line): (usize, std::io::Result<String>)| {
        after(at);
        serde_json::from_str(&line.unwrap()).unwrap()
    };
    let items = lines.enumerate().map(line).collect();
    assert!(child.wait().unwrap().success());
    Some(items)
}

fn url(service: &WorkerHarness) -> String {
    format!("http://{}", service.address())
}

fn kill(service: &WorkerHarness) {
    let worker = service.worker();
    service.signal(Signal::SIGKILL);
    worker.signal(Signal::SIGKILL);
}

#[test]
fn the_python_client_goes_on_at_the_next_replica() {
    let [first, second] = [Model::Slow, Model::Slow].map(WorkerHarness::start);
    let job = Job::lasting("a", 60);
    let uncut = second.run(&job);
    let urls = format!("{},{}", url(&first), url(&second));
    let items = run(&urls, "execute", &job.json(), |at| {
        if at == 12 {
            kill(&first);
        }
    });
    let Some(items) = items else { return };
    let (started, rest) = items.split_first().unwrap();
    let (end, tokens) = rest.split_last().unwrap();
    assert_eq!(started["type"], "started");
    assert_eq!(tokens, uncut.token_data());
    assert_eq!(
        (&end["type"], &end["tokens_out"]),
        (&json!("end"), &json!(60))
    );
    // Now nobody is at the first address.
    let body = json!({"prompt": "x", "max_tokens": 20, "seed": 3, "ignore_eos": true});
    let chunks = run(&urls, "completion", &body, |_| ()).unwrap();
    let text = |chunk: &Value| chunk["choices"][0]["text"].as_str().unwrap().to_owned();
    let whole = second.post("/v1/completions", &body).json();
    assert_eq!(chunks.iter().map(text).collect::<String>(), text(&whole));
}

#[test]
fn the_python_client_gives_up_where_nothing_helps() {
    let service = WorkerHarness::start(Model::Tiny);
    let wrong = json!({"prompt": "x", "top_p": 0});
    let Some(items) = run(&url(&service), "execute", &wrong, |_| ()) else {
        return;
    };
    assert_eq!(items, [json!({"failed": "INVALID_REQUEST"})]);
    let nobody = url(&service);
    drop(service);
    let items = run(&nobody, "execute", &json!({"prompt": "x"}), |_| ());
    assert_eq!(items.unwrap(), [json!({"failed": null})]);
}
