use std::process::{Command, Stdio};

use orcd_shared::exit::worker::{OK, PROTOCOL as WRONG_PROTOCOL, USAGE};
use orcd_shared::protocol::message::{ToSupervisor, ToWorker};
use orcd_shared::protocol::version::{BUILD, PROTOCOL};

use crate::supervisor::{BINARY, Worker, command, exit_of, job, listen, load};

#[test]
fn started_by_hand_it_says_what_to_start_instead() {
    let output = Command::new(BINARY).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(USAGE)));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("worker-orcd --model"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn version_names_build_protocol_and_devices() {
    let output = Command::new(BINARY).arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let head = format!("cuda-worker {BUILD}\nprotocol {PROTOCOL}\ndevices cpu");
    assert!(text.starts_with(&head), "{text}");
}

#[test]
fn hello_is_answered_with_hello() {
    Worker::greeted();
}

#[test]
fn other_protocol_is_told_ours_before_the_end() {
    let mut worker = Worker::start();
    worker.send(&ToWorker::Hello {
        protocol: PROTOCOL + 1,
        build: "9.9.9".into(),
    });
    let answer = ToSupervisor::Hello {
        protocol: PROTOCOL,
        build: BUILD.into(),
    };
    assert_eq!(worker.receive(), Some(answer));
    assert_eq!(worker.receive(), None);
    assert_eq!(worker.exit(), i32::from(WRONG_PROTOCOL));
}

fn sound(message: &ToWorker) -> Vec<u8> {
    let mut bytes = Vec::new();
    orcd_shared::protocol::frame::encode(message, &mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_and_messages_out_of_turn_end_it_with_the_protocol_code() {
    let hello = sound(&ToWorker::Hello {
        protocol: PROTOCOL,
        build: BUILD.into(),
    });
    let submit = sound(&ToWorker::Submit(Box::new(job(1, 1, 1))));
    let cases: [&[&[u8]]; 5] = [
        &[&[0xff; 64]],
        &[&submit],
        &[&hello, &submit],
        &[&hello, &[5, 0, 0, 0, 99, 0, 0, 0, 0]],
        &[&hello, &u32::MAX.to_le_bytes()],
    ];
    for case in cases {
        let mut worker = Worker::start();
        worker.say_bytes(&case.concat());
        assert_eq!(worker.exit(), i32::from(WRONG_PROTOCOL), "{case:x?}");
    }
}

#[test]
fn second_load_is_out_of_turn_too() {
    let mut worker = Worker::greeted();
    let load = sound(&ToWorker::Load(Box::new(load("/missing".as_ref()))));
    // At once: after the first it may be gone.
    worker.say_bytes(&[load.clone(), load].concat());
    let code = worker.exit();
    let failed = i32::from(orcd_shared::exit::worker::LOAD_FAILED);
    assert!(
        [i32::from(WRONG_PROTOCOL), failed].contains(&code),
        "{code}"
    );
}

#[test]
fn without_a_listener_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(&folder.path().join("nobody")).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(USAGE)));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("cuda-worker: no supervisor at "), "{text}");
}

#[test]
fn child_of_another_process_than_the_one_named_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, socket) = listen(&folder);
    let mut command = Command::new(BINARY);
    command
        .arg("--socket")
        .arg(socket)
        .args(["--supervisor-pid", "1"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(exit_of(&mut child), i32::from(OK));
}
