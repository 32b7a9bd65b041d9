//! `run`: a service on loopback for one chat in the terminal, and that chat. Everything ends with it.
//!
//! The chat is a client as others are: it sends its messages over HTTP, and what the person says meanwhile is
//! cancelled by closing the connection.

mod client;
mod input;
mod output;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use model_store::{Error as StoreError, ModelName, Store, pull};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Chat, Config};
use crate::models::ModelsError;
use crate::run::{Ready, RunError, run};
use crate::signals::Shutdown;
use crate::systemd::Manager;
use client::{Answer, AnswerError, Message, Part};
use input::{Input, Line};
use output::Output;

/// A line that forgets what was said.
const CLEAR: &str = "/clear";

/// How a chat ends that nobody ended.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model is not there and could not be pulled.
    #[error(transparent)]
    Model(#[from] ModelsError),
    /// The service ended.
    #[error(transparent)]
    Service(#[from] RunError),
    /// Lines came from a file or a pipe, and not all of them were answered.
    #[error("error: {code}: {message}")]
    Unanswered {
        /// The service's code.
        code: String,
        /// Why the last of them was not.
        message: String,
    },
}

impl ChatError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) => error.exit_code(),
            Self::Service(error) => error.exit_code(),
            Self::Unanswered { .. } => orcd_shared::exit::supervisor::STARTUP_FAILED,
        }
    }
}

/// The file of the model that a chat is to be with: a file, a model that was pulled, or one that is pulled now.
/// Blocks.
///
/// # Errors
/// It is none of these, or can't be pulled.
pub fn find_model(wanted: &Chat) -> Result<PathBuf, ModelsError> {
    let path = std::path::absolute(&wanted.model).unwrap_or_else(|_| wanted.model.clone());
    let Some(name) = wanted.model.to_str().filter(|_| !path.exists()) else {
        return Ok(path);
    };
    let store = Store::new(wanted.settings.models_dir.clone());
    let found = store
        .find(name)
        .and_then(|model| Ok(model.usable()?.to_owned()));
    match (found, name.parse::<ModelName>()) {
        (Err(StoreError::NotFound(_)), Ok(name)) => Ok(pull(&wanted.settings, &name, "main")?.path),
        (found, _) => Ok(found?),
    }
}

/// Serves the model of `config` on loopback and holds one chat with it on stdin and stdout.
///
/// # Errors
/// The service does not start or does not last, or a line of a pipe was not answered.
pub async fn hold(config: Config) -> Result<(), ChatError> {
    let mut signals = Signals::new().map_err(RunError::no_signals)?;
    let (listener, address) = listen().await.map_err(|error| RunError::Startup {
        code: "LISTEN_FAILED",
        message: format!("no port of 127.0.0.1 is free: {error}"),
    })?;
    let name = config.model_names().into_iter().next().unwrap_or_default();
    let device = config.device.to_string();
    let shutdown = Shutdown::default();
    let ready = CancellationToken::new();
    let signal = Ready::Signal(ready.clone());
    let mut service = tokio::spawn(run(
        config,
        listener,
        Manager::default(),
        shutdown.clone(),
        signal,
    ));
    let mut talk = Talk {
        address,
        messages: Vec::new(),
        input: Input::start(),
        output: Output::default(),
        unanswered: None,
    };
    let ended = tokio::select! {
        () = ready.cancelled() => {
            talk.output.greet(&name, &device, address);
            tokio::select! {
                ended = talk.hold(&mut signals) => ended,
                ended = &mut service => return service_ended(ended),
            }
        }
        ended = &mut service => return service_ended(ended),
        () = signals.any() => Ok(()),
    };
    shutdown.drain.cancel();
    stop(service, &shutdown, &mut signals).await?;
    ended
}

async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Waits for the service's end; somebody who is in a hurry is heeded.
async fn stop(
    mut service: JoinHandle<Result<(), RunError>>,
    shutdown: &Shutdown,
    signals: &mut Signals,
) -> Result<(), ChatError> {
    loop {
        tokio::select! {
            ended = &mut service => return service_ended(ended),
            () = signals.any() => shutdown.abort.cancel(),
        }
    }
}

fn service_ended(
    ended: Result<Result<(), RunError>, tokio::task::JoinError>,
) -> Result<(), ChatError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(RunError::from(error).into()),
    }
}

/// SIGINT stops an answer; SIGTERM and SIGHUP end the chat.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// A chat as far as it got.
struct Talk {
    address: SocketAddr,
    messages: Vec<Message>,
    input: Input,
    output: Output,
    unanswered: Option<ChatError>,
}

/// How an answer ended.
enum End {
    Whole,
    Stopped,
    /// So does the chat.
    Leave,
}

impl Talk {
    /// Answers line after line until there are no more.
    async fn hold(&mut self, signals: &mut Signals) -> Result<(), ChatError> {
        self.output.prompt();
        loop {
            let line = tokio::select! {
                line = self.input.next() => line,
                _ = signals.interrupt.recv() => {
                    self.output.hint();
                    continue;
                }
                _ = signals.terminate.recv() => break,
                _ = signals.hangup.recv() => break,
            };
            let text = match line {
                Line::End => break,
                Line::TooLong => {
                    self.output.error("the line is too long; it was left out");
                    String::new()
                }
                Line::Text(text) => text,
            };
            match text.trim() {
                "" => {}
                CLEAR => self.messages.clear(),
                _ => {
                    if let End::Leave = self.answer(text, signals).await {
                        break;
                    }
                }
            }
            self.output.prompt();
        }
        self.output.close();
        match self.unanswered.take() {
            Some(error) if !self.input.is_terminal() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends what was said and writes what comes back. Of an answer that failed nothing is remembered.
    async fn answer(&mut self, text: String, signals: &mut Signals) -> End {
        self.messages.push(Message::user(text));
        let mut said = String::new();
        let result = tokio::select! {
            result = stream(self.address, &self.messages, &mut self.output, &mut said) => result,
            _ = signals.interrupt.recv() => Ok(End::Stopped),
            _ = signals.terminate.recv() => Ok(End::Leave),
            _ = signals.hangup.recv() => Ok(End::Leave),
        };
        self.output.end_of_answer();
        match result {
            Ok(end) => {
                self.messages.push(Message::assistant(said));
                end
            }
            Err(error) => {
                self.messages.pop();
                self.output.error(&error.to_string());
                self.unanswered = Some(ChatError::Unanswered {
                    code: error.code.to_ascii_uppercase(),
                    message: error.message,
                });
                End::Whole
            }
        }
    }
}

async fn stream(
    address: SocketAddr,
    messages: &[Message],
    output: &mut Output,
    said: &mut String,
) -> Result<End, AnswerError> {
    let mut answer = Answer::ask(address, messages).await?;
    while let Some(part) = answer.next().await? {
        let is_taken = match part {
            Part::Reasoning(text) => output.write(&text),
            Part::Content(text) => {
                said.push_str(&text);
                output.write(&text)
            }
            Part::Cut => {
                output.end_of_answer();
                output.error("the answer was cut at its longest length");
                true
            }
        };
        if !is_taken {
            return Ok(End::Leave);
        }
    }
    Ok(End::Whole)
}
