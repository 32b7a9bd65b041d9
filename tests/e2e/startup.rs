//! What keeps the service from starting is said in one line, with the right exit code.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orcd_shared::gguf::Value;
use orcd_tests::model::rewrite;
use orcd_tests::{Exit, Model, Starter, paths, report};

const SOON: Duration = Duration::from_secs(60);

/// Starts with a file in place of a model, which must fail.
fn start_with(path: &Path) -> Exit {
    Starter::new(Model::File(path.to_owned())).run_to_exit(SOON)
}

/// A folder with the tiny model in it.
fn with_tiny_model() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Model::Tiny.file(folder.path());
    (folder, path)
}

#[track_caller]
fn assert_load_failed(what: &str, path: &Path, exit: &Exit) -> String {
    let line = exit.error_line(1).to_owned();
    assert!(
        line.starts_with("error: MODEL_LOAD_FAILED: "),
        "{what}: {line}"
    );
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        line.contains(name),
        "{what}: the path is not named in {line}"
    );
    assert_eq!(exit.stdout, "", "{what}: READY was said");
    line
}

#[test]
fn file_that_is_no_model_is_refused_with_its_path() {
    let (folder, good) = with_tiny_model();
    let bytes = fs::read(&good).unwrap();
    let mut wrong_version = bytes.clone();
    wrong_version[4] = 99;
    let mut huge_counts = bytes.clone();
    huge_counts[8..24].fill(0xff);
    for (name, content) in [
        ("empty.gguf", &b""[..]),
        (
            "text.gguf",
            b"not a model at all, but some text of some length",
        ),
        ("magic-only.gguf", b"GGUF"),
        ("cut-in-header.gguf", &bytes[..1000]),
        ("cut-in-tensors.gguf", &bytes[..bytes.len() / 2]),
        ("one-byte-short.gguf", &bytes[..bytes.len() - 33]),
        ("wrong-version.gguf", &wrong_version),
        ("huge-counts.gguf", &huge_counts),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        assert_load_failed(name, &path, &start_with(&path));
    }
    let missing = folder.path().join("missing.gguf");
    assert_load_failed("missing", &missing, &start_with(&missing));
    assert_load_failed("a folder", folder.path(), &start_with(folder.path()));
}

#[test]
fn model_that_is_not_supported_is_refused_by_name() {
    let (folder, good) = with_tiny_model();
    let text = |s: &str| Value::String(s.to_owned());
    let cases: [(&str, Option<Value>, &str); 5] = [
        ("general.architecture", Some(text("mamba")), "mamba"),
        (
            "tokenizer.ggml.model",
            Some(text("wordpiece-x")),
            "wordpiece-x",
        ),
        (
            "qwen2.attention.layer_norm_rms_epsilon",
            None,
            "layer_norm_rms_epsilon",
        ),
        ("qwen2.embedding_length", Some(Value::U32(250)), "250"),
        ("qwen2.block_count", Some(Value::U32(3)), "blk.2."),
    ];
    for (key, value, named) in cases {
        let path = folder.path().join("edited.gguf");
        rewrite(&good, &path, |k, v| {
            if k == key {
                value.clone()
            } else {
                Some(v.clone())
            }
        });
        let line = assert_load_failed(key, &path, &start_with(&path));
        assert!(
            line.contains(named),
            "{key}: {named:?} is not named in {line}"
        );
    }
    let same = folder.path().join("same.gguf");
    rewrite(&good, &same, |_, v| Some(v.clone()));
    Starter::new(Model::File(same)).start();
}

#[test]
fn cuda_in_a_build_without_cuda_is_refused_and_never_falls_back() {
    let version = Starter::bare().arg("--version").run_to_exit(SOON).stdout;
    if version.contains("cuda") {
        return report::skipped("this build has CUDA");
    }
    let named = Starter::new(Model::Tiny).device("cuda:0").run_to_exit(SOON);
    let (_folder, model) = with_tiny_model();
    let numbered = Starter::bare()
        .flag("--model", model.display())
        .flag("--gpu-device", 0);
    for exit in [named, numbered.run_to_exit(SOON)] {
        let line = exit.error_line(2);
        assert!(line.contains("cuda:0") && line.contains("CUDA"), "{line}");
        assert_eq!(exit.stdout, "");
    }
}

#[test]
fn context_beyond_the_model_is_refused() {
    let exit = Starter::new(Model::Tiny)
        .flag("--context", 1_000_000)
        .run_to_exit(SOON);
    let line = exit.error_line(1);
    assert!(line.contains("1000000"), "{line}");
}

#[test]
fn too_little_memory_is_found_before_loading_and_says_how_much_once() {
    // Tera-bytes of KV cache.
    let (folder, good) = with_tiny_model();
    let path = folder.path().join("long.gguf");
    rewrite(&good, &path, |key, value| match key {
        "qwen2.context_length" => Some(Value::U32(4_194_304)),
        _ => Some(value.clone()),
    });
    let starter = Starter::new(Model::File(path)).flag("--parallel", 1024);
    let starter = starter.flag("--kv-memory", "100T");
    let exit = starter.run_to_exit(SOON);
    let line = exit.error_line(1);
    let code = match paths::device().as_str() {
        "cpu" => "INSUFFICIENT_MEMORY",
        _ => "INSUFFICIENT_VRAM",
    };
    let (before, why) = line.split_once(&format!("{code}: ")).expect(line);
    assert_eq!(before, "error: ", "{line}");
    assert_eq!(exit.stderr.matches(why).count(), 1, "{}", exit.stderr);
    for named in ["long.gguf", &paths::device(), "free"] {
        assert!(line.contains(named), "no {named:?} in {line}");
    }
    let numbers = line
        .split(|c: char| !c.is_ascii_digit())
        .filter(|n| n.len() > 2);
    assert!(
        numbers.count() >= 2,
        "required and free are not named in {line}"
    );
}

#[test]
fn worker_program_that_ends_at_once_is_a_startup_error() {
    let exit = Starter::new(Model::Tiny)
        .worker(Path::new("/bin/false"))
        .run_to_exit(SOON);
    let line = exit.error_line(1);
    assert!(
        line.contains("exit 1"),
        "{line} does not say how the worker ended"
    );
}

#[test]
fn port_in_use_is_a_startup_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let exit = Starter::bare()
        .flag("--model", with_tiny_model().1.display())
        .flag("--device", paths::device())
        .flag("--port", port)
        .run_to_exit(SOON);
    assert!(
        exit.error_line(1).contains(&port.to_string()),
        "{}",
        exit.error_line(1)
    );
}

#[test]
fn missing_worker_program_is_a_startup_error() {
    let exit = Starter::bare()
        .flag("--model", with_tiny_model().1.display())
        .flag("--device", paths::device())
        .flag("--port", 0)
        .flag("--worker-bin", "/nonexistent/cuda-worker")
        .run_to_exit(SOON);
    assert!(
        exit.error_line(1).contains("/nonexistent/cuda-worker"),
        "{}",
        exit.error_line(1)
    );
}

/// Answers each request with the next status; gives the bodies.
fn callback_server(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ready?x=1", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let answer = |status: &u16| {
            let (mut socket, _) = listener.accept().unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.ends_with(b"}") {
                let n = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..n]);
                assert!(n > 0, "cut request");
            }
            let response = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            socket.write_all(response.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        };
        statuses.iter().map(answer).collect()
    });
    (url, server)
}

#[test]
fn callback_tells_who_is_ready_and_is_tried_again() {
    let (url, server) = callback_server(&[500, 200]);
    let service = Starter::new(Model::Tiny)
        .flag("--callback-url", url)
        .start();
    let requests = server.join().unwrap();
    for request in &requests {
        assert!(
            request.starts_with("POST /ready?x=1 HTTP/1.1\r\n"),
            "{request}"
        );
        let body = &request[request.find("\r\n\r\n").unwrap()..];
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let mut keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["model_ref", "uri", "vram_bytes", "worker_id"]);
        assert_eq!(body["worker_id"], service.worker_id());
        assert_eq!(body["uri"], format!("http://{}", service.address()));
        assert!(
            body["model_ref"].is_string() && body["vram_bytes"].is_u64(),
            "{body}"
        );
    }
    assert_eq!(service.get("/health/ready").status(), 200);
}
