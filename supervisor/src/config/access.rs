//! The flags that say who may ask.

use std::convert::Infallible;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;

use super::ConfigError;
use crate::http::access::{Access, HostName, Keys, Origin};

/// Largest file of keys that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// A key that requests have to bring as "Authorization: Bearer KEY"; may be given several times,
    /// and with commas in the variable. Other users of the machine see flags: better is a file
    #[arg(long, value_name = "KEY", env = "ORCD_API_KEY", hide_env_values = true,
          value_delimiter = ',', value_parser = secret)]
    api_key: Vec<Secret>,

    /// File with such keys, one a line; empty lines and those that begin with # don't count
    #[arg(long, value_name = "PATH", env = "ORCD_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,

    /// Let everybody in who reaches the service, also from other machines
    #[arg(long, env = "ORCD_INSECURE_NO_AUTH", value_parser = BoolishValueParser::new())]
    insecure_no_auth: bool,

    /// Origin of web pages that may use the service, such as `https://app.example`; may be given
    /// several times, and with commas in the variable [pages of this machine may]
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "ORCD_ALLOW_ORIGIN",
        value_delimiter = ','
    )]
    allow_origin: Vec<String>,

    /// Name under which a service on loopback may be asked for beside localhost and 127.0.0.1, such
    /// as that of a proxy in front; may be given several times, and with commas in the variable
    #[arg(
        long,
        value_name = "NAME",
        env = "ORCD_ALLOW_HOST",
        value_delimiter = ','
    )]
    allow_host: Vec<String>,
}

/// A key on its way from the command line.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a key)")
    }
}

/// Takes everything: a parser's error would show the key.
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret(text.to_owned()))
}

impl AccessArgs {
    /// Who may ask, and what to say about how that is set.
    pub(super) fn resolve(self) -> Result<(Access, Option<String>), ConfigError> {
        let mut keys = Keys::default();
        for Secret(key) in &self.api_key {
            add(&mut keys, key.trim(), "--api-key")?;
        }
        let mut warning = None;
        if let Some(path) = &self.api_key_file {
            warning = read_keys(path, &mut keys)?;
        }
        if self.insecure_no_auth && !keys.is_empty() {
            return Err(ConfigError::usage(
                "--insecure-no-auth and an API key are both given; give one of them",
            ));
        }
        let origins = self.allow_origin.iter().map(|text| origin(text));
        let hosts = self.allow_host.iter().map(|text| host(text));
        let access = Access {
            keys,
            everybody: self.insecure_no_auth,
            origins: origins.collect::<Result<_, _>>()?,
            hosts: hosts.collect::<Result<_, _>>()?,
        };
        Ok((access, warning))
    }
}

fn add(keys: &mut Keys, key: &str, whence: &str) -> Result<(), ConfigError> {
    if key.is_empty() {
        let message = format!("{whence}: a key is empty; give at least one character");
        return Err(ConfigError::usage(message));
    }
    // What a header can carry, so that there is no key that no request can bring.
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!(
            "{whence}: a key has a space or a character that is not ASCII; give letters, digits \
             and signs"
        );
        return Err(ConfigError::usage(message));
    }
    keys.add(key);
    Ok(())
}

/// Adds the keys in the file; says so if others can read it.
fn read_keys(path: &Path, keys: &mut Keys) -> Result<Option<String>, ConfigError> {
    let shown = path.display();
    let failed = |what: String| ConfigError::usage(format!("--api-key-file {shown}: {what}"));
    let broken = |e: std::io::Error| failed(e.to_string());
    let file = std::fs::File::open(path).map_err(broken)?;
    let mode = file.metadata().map_err(broken)?.permissions().mode();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(broken)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut found = 0;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        add(
            keys,
            line,
            &format!("--api-key-file {shown}, line {number}"),
        )?;
        found += 1;
    }
    if found == 0 {
        return Err(failed("there is no key in it; give one a line".into()));
    }
    Ok((mode & 0o004 != 0).then(|| {
        format!(
            "--api-key-file {shown} can be read by every user of the machine: chmod o-r {shown}"
        )
    }))
}

fn origin(text: &str) -> Result<Origin, ConfigError> {
    Origin::parse(text.trim().trim_end_matches('/')).ok_or_else(|| {
        ConfigError::usage(format!(
            "--allow-origin {text}: no origin; give each in full, such as https://app.example or \
             http://localhost:3000"
        ))
    })
}

fn host(text: &str) -> Result<HostName, ConfigError> {
    HostName::parse(text.trim()).ok_or_else(|| {
        ConfigError::usage(format!(
            "--allow-host {text}: no name; give one such as gpu.example or gpu.example:8080"
        ))
    })
}

#[cfg(test)]
mod tests;
