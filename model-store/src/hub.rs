//! The hub over HTTP: what is in a repository, and the bytes of its files.

use std::error::Error as _;
use std::io::Read as _;
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{StatusCode, Url};

use crate::attempts::Attempts;
use crate::error::Error;
use crate::listing::{Listing, RemoteFile};
use crate::name::RepoName;
use crate::progress::Progress;
use crate::redirect::{MAX_REDIRECTS, follow, takes_token};
use crate::settings::{Settings, Token};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence of the hub.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Largest listing that is read, in bytes; one of ten thousand files has four million.
const MAX_LISTING: u64 = 16 << 20;

/// A hub that can be asked.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<Token>,
}

/// Why one try failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another one may do better, after the pause that the hub asked for.
    Passing {
        message: String,
        pause: Option<Duration>,
    },
    /// No other one will.
    Final(Error),
}

impl Failure {
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self::Passing {
            message: message.into(),
            pause: None,
        }
    }
}

/// Bytes of a file, from one of them to its end.
pub(crate) struct Body {
    pub(crate) response: Response,
    /// The byte of the file that comes first.
    pub(crate) offset: u64,
}

impl Hub {
    /// The hub of these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Hub`]: TLS can't be set up here.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        // Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: client(&settings.endpoint)?,
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        })
    }

    /// What is in `repo` at `revision`: a branch, a tag or a commit.
    ///
    /// # Errors
    /// There is no such thing, the hub is not reached, or its answer can't be used.
    pub fn listing(
        &self,
        repo: &RepoName,
        revision: &str,
        progress: &Progress,
    ) -> Result<Listing, Error> {
        let mut url = self.url(&[
            "api",
            "models",
            &repo.owner,
            &repo.name,
            "revision",
            revision,
        ]);
        url.set_query(Some("blobs=true"));
        let mut attempts = Attempts::default();
        loop {
            match self.bytes(url.clone()) {
                Ok(json) => return Listing::parse(&json),
                Err(failure) => wait_or_give_up(failure, &mut attempts, progress)
                    .map_err(|error| about(error, repo, revision))?,
            }
        }
    }

    /// The bytes of a file from `offset` on, or from its beginning if the hub does not do that.
    pub(crate) fn file(
        &self,
        repo: &RepoName,
        commit: &str,
        file: &RemoteFile,
        offset: u64,
    ) -> Result<Body, Failure> {
        let url = self.url(&[&repo.owner, &repo.name, "resolve", commit, &file.name]);
        let response = self.get(url, offset)?;
        let offset = offset_of(&response, offset, file)?;
        Ok(Body { response, offset })
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // An address with a host has segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }

    fn bytes(&self, url: Url) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut body = self.get(url, 0)?.take(MAX_LISTING + 1);
        body.read_to_end(&mut bytes)
            .map_err(|error| Failure::passing(format!("the hub's answer broke off: {error}")))?;
        if bytes.len() as u64 > MAX_LISTING {
            let message = format!("the hub's list of files is longer than {MAX_LISTING} bytes");
            return Err(Failure::Final(Error::Hub(message)));
        }
        Ok(bytes)
    }

    /// A good answer, behind whatever redirects lead to it.
    fn get(&self, mut url: Url, offset: u64) -> Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.get(url.clone());
            if let Some(token) = self
                .token
                .as_ref()
                .filter(|_| takes_token(&self.endpoint, &url))
            {
                request = request.header(AUTHORIZATION, token.header());
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let response = request.send().map_err(|error| {
                let host = url.host_str().unwrap_or_default();
                Failure::passing(format!("{host}: {}", reason(error)))
            })?;
            if !response.status().is_redirection() {
                return judge(response);
            }
            let location = response.headers().get(LOCATION);
            let location = location
                .and_then(|value| value.to_str().ok())
                .unwrap_or("data:");
            let next = follow(&url, location).map_err(|why| Error::Hub(why.to_string()));
            url = next.map_err(Failure::Final)?;
        }
        let message = format!("the hub redirects more than {MAX_REDIRECTS} times");
        Err(Failure::Final(Error::Hub(message)))
    }
}

fn client(endpoint: &Url) -> Result<Client, Error> {
    let builder = || {
        Client::builder()
            .user_agent(concat!("worker-orcd/", env!("CARGO_PKG_VERSION")))
            // They are followed here, where it is known what may go where.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            // Of each read, for a blocking client.
            .timeout(SILENCE_LIMIT)
    };
    let client = match builder().build() {
        // A machine without certificates can still ask a hub without TLS.
        Err(_) if endpoint.scheme() == "http" => builder().tls_certs_only([]).build(),
        built => built,
    };
    client.map_err(|error| {
        Error::Hub(format!(
            "TLS can't be set up: {}; are there certificates here (the package ca-certificates)?",
            reason(error)
        ))
    })
}

/// All that an error says, without the address: those of files carry signatures.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

/// Waits before the next try, and says so.
pub(crate) fn wait_or_give_up(
    failure: Failure,
    attempts: &mut Attempts,
    progress: &Progress,
) -> Result<(), Error> {
    let (message, asked) = match failure {
        Failure::Final(error) => return Err(error),
        Failure::Passing { message, pause } => (message, pause),
    };
    let Some(pause) = attempts.failed(asked) else {
        return Err(Error::Unreachable { message });
    };
    progress.note(&format!(
        "{message}; trying again in {} s",
        pause.as_secs_f32()
    ));
    std::thread::sleep(pause);
    Ok(())
}

fn judge(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    let message = format!("the hub answered {status}");
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Failure::Final(Error::NotFound(format!(
                "{message}: there is no such model, or it is not for everybody; if it is gated, accept its \
             terms on its page and set HF_TOKEN"
            ))))
        }
        StatusCode::NOT_FOUND => Err(Failure::Final(Error::NotFound(format!(
            "{message}: there is no such model, revision or file"
        )))),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Err(passing(message, &response))
        }
        _ if status.is_server_error() => Err(passing(message, &response)),
        _ => Err(Failure::Final(Error::Hub(message))),
    }
}

fn passing(message: String, response: &Response) -> Failure {
    let pause = retry_after(response.headers());
    let asked = pause.map_or(String::new(), |pause| {
        format!(" and asks for {} s", pause.as_secs())
    });
    Failure::Passing {
        message: message + &asked,
        pause,
    }
}

/// The pause that the hub asks for; a date counts as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// The byte of `file` that an answer begins with, if it goes on to the file's end.
fn offset_of(response: &Response, asked: u64, file: &RemoteFile) -> Result<u64, Failure> {
    let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
    let (offset, total) = if is_part {
        let header = response.headers().get(CONTENT_RANGE);
        let range = header.and_then(|value| content_range(value.to_str().ok()?));
        range.filter(|(from, _)| *from == asked).ok_or_else(|| {
            Failure::Final(Error::Hub(format!(
                "the hub answered with another part of {}",
                file.name
            )))
        })?
    } else {
        (0, response.content_length().unwrap_or(file.bytes))
    };
    if total != file.bytes {
        return Err(Failure::Final(Error::Corrupt(format!(
            "{} has {total} bytes and {} by the hub's record; try later, or another revision",
            file.name, file.bytes
        ))));
    }
    Ok(offset)
}

/// First byte and size of the whole, of `bytes FIRST-LAST/SIZE`.
fn content_range(header: &str) -> Option<(u64, u64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last.checked_add(1)? == total).then_some((first, total))
}

fn about(error: Error, repo: &RepoName, revision: &str) -> Error {
    match error {
        Error::NotFound(message) => Error::NotFound(format!("{repo} at {revision}: {message}")),
        Error::Hub(message) => Error::Hub(format!("{repo} at {revision}: {message}")),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_goes_to_the_end_of_the_file() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        for wrong in [
            "bytes 5-8/10",
            "bytes 9-5/10",
            "bytes 5-9/*",
            "5-9/10",
            "bytes x",
            "bytes 0-18446744073709551615/0",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
