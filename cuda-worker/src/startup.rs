//! From the command line to a serving process. The main thread becomes the reader of the socket,
//! so that the end of the supervisor ends this process whatever the engine is doing.

use std::io::{Read, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use interprocess::local_socket::Stream;
use orcd_shared::exit;
use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{LoadRequest, ToSupervisor, ToWorker};
use orcd_shared::protocol::version::{BUILD, PROTOCOL};

use crate::abandon::Abandon;
use crate::engine_main;
use crate::engine_thread::Command;
use crate::exit_now::exit_now;
use crate::failpoints::{self, Failpoint};
use crate::link::{self, FrameReader, LinkError};
use crate::log;
use crate::oom;
use crate::outbox::{Outbox, Status};
use crate::signals;

/// Why the process never came to serve, with its exit code.
struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        let code = match error {
            LinkError::Frame(_) => exit::worker::PROTOCOL,
            LinkError::Io(_) => exit::worker::OK,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

/// Serves the supervisor `supervisor_pid` that listens at `socket`. Returns the exit code if it
/// never came to loading; afterwards the process ends where the reason is found.
#[must_use]
pub fn run(socket: &Path, supervisor_pid: u32) -> u8 {
    match start(socket, supervisor_pid) {
        Ok(code) => code,
        Err(stop) => {
            log::line(format_args!("{}", stop.message));
            stop.code
        }
    }
}

fn start(socket: &Path, supervisor_pid: u32) -> Result<u8, Stop> {
    let internal = |what: &str, error: std::io::Error| {
        Stop::new(exit::worker::INTERNAL, format!("{what}: {error}"))
    };
    if let Err(error) = oom::prefer_this_process() {
        log::line(format_args!(
            "the kernel may kill the supervisor before this process when memory runs out: {error}"
        ));
    }
    let abandon = signals::install().map_err(|e| internal("signal handlers", e))?;
    if !signals::die_with(supervisor_pid).map_err(|e| internal("PR_SET_PDEATHSIG", e))? {
        return Err(Stop::new(exit::worker::OK, "the supervisor is gone"));
    }
    failpoints::pass(Failpoint::Start);
    let stream = link::connect(socket).map_err(|error| {
        let message = format!("no supervisor at {}: {error}", socket.display());
        Stop::new(exit::worker::USAGE, message)
    })?;
    let mut reader = FrameReader::new(&*stream);
    if !shake_hands(&mut reader, &stream)? {
        return Ok(exit::worker::OK);
    }
    let status = Arc::new(Status::default());
    let outbox = Outbox::open(Arc::clone(&stream), Arc::clone(&status))
        .map_err(|e| internal("writer thread", e))?;
    let Some(request) = load_request(&mut reader)? else {
        return Ok(exit::worker::OK);
    };
    let (commands, inbox) = mpsc::channel();
    engine_main::spawn(
        request,
        (commands.clone(), inbox),
        outbox,
        status,
        abandon.clone(),
    )
    .map_err(|e| internal("engine thread", e))?;
    read(reader, &commands, &abandon)
}

/// Hears Hello and answers it; false if the supervisor went away instead. The answer goes out also
/// when the protocols differ, so that both sides can name both.
fn shake_hands<R: Read>(reader: &mut FrameReader<R>, mut stream: &Stream) -> Result<bool, Stop> {
    let (protocol, build) = match reader.message()? {
        None => return Ok(false),
        Some(ToWorker::Hello { protocol, build }) => (protocol, build),
        Some(_) => {
            return Err(Stop::new(
                exit::worker::PROTOCOL,
                "the supervisor did not begin with Hello",
            ));
        }
    };
    let answer = ToSupervisor::Hello {
        protocol: PROTOCOL,
        build: BUILD.into(),
    };
    let mut bytes = Vec::new();
    frame::encode(&answer, &mut bytes).map_err(LinkError::from)?;
    stream.write_all(&bytes).map_err(LinkError::from)?;
    if protocol != PROTOCOL {
        let message = format!(
            "the supervisor speaks protocol {protocol} (build {build}), this worker speaks \
             {PROTOCOL} (build {BUILD}); install both from one build"
        );
        return Err(Stop::new(exit::worker::PROTOCOL, message));
    }
    Ok(true)
}

/// Waits for what to load; `None` if the supervisor wants nothing any more.
fn load_request<R: Read>(reader: &mut FrameReader<R>) -> Result<Option<Box<LoadRequest>>, Stop> {
    match reader.message()? {
        Some(ToWorker::Load(request)) => Ok(Some(request)),
        None | Some(ToWorker::Shutdown) => Ok(None),
        Some(_) => Err(Stop::new(
            exit::worker::PROTOCOL,
            "the supervisor sent a job before Load",
        )),
    }
}

/// Passes commands on until the supervisor says stop or is gone; then the process ends at once,
/// whatever the engine is doing.
fn read<R: Read>(mut reader: FrameReader<R>, commands: &Sender<Command>, abandon: &Abandon) -> ! {
    let code = loop {
        let command = match reader.message() {
            Ok(Some(ToWorker::Submit(job))) => Command::Submit(job),
            Ok(Some(ToWorker::Cancel(key))) => Command::Cancel(key),
            Ok(Some(ToWorker::Serve(serve))) => Command::Serve(serve),
            Ok(Some(ToWorker::Settled)) => Command::Settled,
            Ok(Some(ToWorker::Shutdown) | None) => break exit::worker::OK,
            Ok(Some(ToWorker::Hello { .. } | ToWorker::Load(_))) => {
                log::line(format_args!("the supervisor sent Hello or Load twice"));
                break exit::worker::PROTOCOL;
            }
            Err(error) => {
                let stop = Stop::from(error);
                log::line(format_args!("{}", stop.message));
                break stop.code;
            }
        };
        failpoints::pass(Failpoint::Command);
        if let Command::Cancel(key) = command {
            abandon.cancelled(key);
        }
        // Nobody takes it only while the engine thread is ending the process.
        let _ = commands.send(command);
    };
    exit_now(code)
}
