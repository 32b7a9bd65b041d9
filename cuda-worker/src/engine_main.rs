//! The engine thread from its start to the end of the process: load, serve, last words.

use std::any::Any;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::exit;
use orcd_shared::protocol::message::{LoadRequest, ToSupervisor};

use crate::abandon::Abandon;
use crate::engine_thread::{self, Command, LoopContext};
use crate::exit_now::exit_now;
use crate::loading;
use crate::log;
use crate::outbox::{Outbox, Status};
use crate::residency::{self, Residency};
use crate::scheduler::step_engine::StepEngine as _;
use crate::scheduler::{Fatal, Scheduler};

/// How long last words may take to be read.
const FINAL_MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// The main thread's stack, for C++ that may rely on it; threads of Rust get a quarter.
const STACK_BYTES: usize = 8 << 20;

/// Starts the engine thread. The engine is built on it and never leaves it.
///
/// # Errors
/// No thread can be started.
pub fn spawn(
    request: Box<LoadRequest>,
    (sender, commands): (Sender<Command>, Receiver<Command>),
    outbox: Outbox,
    status: Arc<Status>,
    abandon: Abandon,
) -> io::Result<()> {
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .stack_size(STACK_BYTES);
    thread.spawn(move || {
        let work = || engine_main(&request, (sender, &commands), &outbox, &status, &abandon);
        // Nothing that the panic may have left half-done is used again: the process ends.
        let end = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|p| Some(panicked(&*p)));
        let Some((message, code)) = end else {
            exit_now(exit::worker::OK)
        };
        outbox.send_last(&message, FINAL_MESSAGE_TIMEOUT);
        exit_now(code)
    })?;
    Ok(())
}

/// Loads and serves; returns the last message and the exit code, `None` if there is nobody to tell.
fn engine_main(
    request: &LoadRequest,
    (sender, commands): (Sender<Command>, &Receiver<Command>),
    outbox: &Outbox,
    status: &Status,
    abandon: &Abandon,
) -> Option<(ToSupervisor, u8)> {
    let loaded = loading::load(request, |message| outbox.send(&message));
    let serving = match loaded {
        Ok(serving) => serving,
        // The supervisor says it to people.
        Err(failure) => {
            let (code, message) = (failure.code, failure.message);
            let message = ToSupervisor::LoadFailed { code, message };
            return Some((message, exit::worker::LOAD_FAILED));
        }
    };
    let (engine, limits, grammars) = serving.with_grammars(move |key, compiled| {
        // Nobody takes it only while the engine thread is ending the process.
        let _ = sender.send(Command::Compiled(key, compiled));
    });
    // Not taken down at the end: on a device that no longer answers that can take for ever, and the process ends anyway.
    let mut engine = ManuallyDrop::new(engine);
    let mut scheduler = Scheduler::new(limits, request.end_tokens.clone());
    match grammars {
        Ok(grammars) => scheduler.compile_with(grammars),
        Err(error) => log::line(format_args!(
            "constraints can't be compiled: no thread: {error}"
        )),
    }
    let residency = Residency::new(engine.resident(), residency::INTERVAL, Instant::now());
    let context = LoopContext {
        status,
        abandon,
        residency,
    };
    let say = |message| outbox.send(&message);
    let served = engine_thread::serve(&mut *engine, scheduler, commands, context, say);
    served.err().map(final_message)
}

fn final_message(fatal: Fatal) -> (ToSupervisor, u8) {
    log::line(format_args!("{}", fatal.message));
    (
        ToSupervisor::Fatal {
            code: fatal.code,
            message: fatal.message,
        },
        fatal.exit,
    )
}

/// The panic's own words are on standard error already, with their place.
fn panicked(payload: &(dyn Any + Send)) -> (ToSupervisor, u8) {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    final_message(Fatal {
        code: ErrorCode::Internal,
        message: format!(
            "a bug on the engine thread: {}",
            text.unwrap_or("no message")
        ),
        exit: exit::worker::INTERNAL,
    })
}
