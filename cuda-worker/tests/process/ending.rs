use std::process::{Command, Stdio};

use cuda_worker::link::FrameReader;
use interprocess::local_socket::traits::{Listener as _, Stream as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orcd_shared::exit::worker::OK;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{ToSupervisor, ToWorker};

use crate::model;
use crate::supervisor::{BINARY, TEST_TIMEOUT, Worker, job, listen, load};

/// A worker in the middle of a long job.
fn working() -> Worker {
    let (mut worker, _) = Worker::ready(load(&model::slow()));
    worker.submit(job(1, 100, 1500));
    let Some(ToSupervisor::Step(_)) = worker.receive() else {
        panic!("no step")
    };
    worker
}

fn signal(worker: &Worker, signal: Signal) {
    kill(Pid::from_raw(worker.pid() as i32), signal).unwrap();
}

#[test]
fn closed_socket_ends_it_while_it_generates() {
    let mut worker = working();
    worker.hang_up();
    assert_eq!(worker.exit(), i32::from(OK));
}

#[test]
fn closed_socket_ends_it_before_and_during_loading() {
    let mut worker = Worker::start();
    worker.hang_up();
    assert_eq!(worker.exit(), i32::from(OK));
    let mut worker = Worker::greeted();
    worker.send(&ToWorker::Load(Box::new(load(&model::slow()))));
    worker.hang_up();
    assert_eq!(worker.exit(), i32::from(OK));
}

#[test]
fn shutdown_ends_it_while_it_generates() {
    let mut worker = working();
    worker.send(&ToWorker::Shutdown);
    assert_eq!(worker.exit(), i32::from(OK));
}

#[test]
fn interrupt_from_a_terminal_is_left_to_the_supervisor() {
    let mut worker = working();
    signal(&worker, Signal::SIGINT);
    worker.submit(job(2, 3, 3));
    let received = std::iter::from_fn(|| worker.receive());
    let tokens = received.filter_map(|m| match m {
        ToSupervisor::Step(report) => Some(report.tokens),
        _ => None,
    });
    assert!(
        tokens
            .flatten()
            .any(|t| t.key == JobKey(2) && t.finish.is_some())
    );
}

#[test]
fn terminate_ends_it_cleanly() {
    let mut worker = working();
    signal(&worker, Signal::SIGTERM);
    assert_eq!(worker.exit(), i32::from(OK));
}

#[test]
fn abandon_signal_is_survived_and_the_cancellation_answered() {
    let mut worker = working();
    worker.send(&ToWorker::Cancel(JobKey(1)));
    signal(&worker, Signal::SIGUSR1);
    let mut received = std::iter::from_fn(|| worker.receive());
    assert!(received.any(|m| m == ToSupervisor::Cancelled(JobKey(1))));
    assert_eq!(worker.run(&[job(2, 3, 3)]).len(), 1);
}

#[test]
fn it_dies_with_its_parent_even_if_somebody_holds_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, socket) = listen(&folder);
    let script = format!(
        "{BINARY} --socket {} --supervisor-pid $$ </dev/null & wait",
        socket.display()
    );
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stream = listener.accept().unwrap();
    stream.set_recv_timeout(Some(TEST_TIMEOUT)).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(
        FrameReader::new(&stream)
            .message::<ToSupervisor>()
            .unwrap()
            .is_none()
    );
}
