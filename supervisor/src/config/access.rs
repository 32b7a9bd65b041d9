//! The flags that say who may ask.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use super::ConfigError;
use crate::http::access::{Access, HostName, KeySource, Origin, Role};

#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// A key that requests have to bring as "Authorization: Bearer KEY"; may be given several times,
    /// and with commas in the variable. Other users of the machine see flags: better is a file
    #[arg(long, value_name = "KEY", env = "ORCD_API_KEY", hide_env_values = true,
          value_delimiter = ',', value_parser = secret)]
    api_key: Vec<Secret>,

    /// File with such keys, one a line; empty lines and those that begin with # don't count. It is read
    /// again when it changes
    #[arg(long, value_name = "PATH", env = "ORCD_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,

    /// A key that also ends the service (POST /shutdown), which others don't
    #[arg(long, value_name = "KEY", env = "ORCD_ADMIN_KEY", hide_env_values = true,
          value_delimiter = ',', value_parser = secret)]
    admin_key: Vec<Secret>,

    /// File with such keys, as --api-key-file has them
    #[arg(long, value_name = "PATH", env = "ORCD_ADMIN_KEY_FILE")]
    admin_key_file: Option<PathBuf>,

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
    pub(super) fn resolve(self) -> Result<(Access, Vec<String>), ConfigError> {
        let mut source = KeySource::default();
        let given = [
            ("--api-key", &self.api_key, Role::User),
            ("--admin-key", &self.admin_key, Role::Admin),
        ];
        for (flag, keys, role) in given {
            for Secret(key) in keys {
                let added = source.add(key.trim(), role, flag);
                added.map_err(ConfigError::usage)?;
            }
        }
        let files = [
            ("--api-key-file", self.api_key_file, Role::User),
            ("--admin-key-file", self.admin_key_file, Role::Admin),
        ];
        for (flag, path, role) in files {
            if let Some(path) = path {
                let added = source.add_file(flag, path, role);
                added.map_err(ConfigError::usage)?;
            }
        }
        let (keys, warnings) = source.read().map_err(ConfigError::usage)?;
        if self.insecure_no_auth && !keys.is_empty() {
            return Err(ConfigError::usage(
                "--insecure-no-auth and an API key are both given; give one of them",
            ));
        }
        let origins = self.allow_origin.iter().map(|text| origin(text));
        let hosts = self.allow_host.iter().map(|text| host(text));
        let access = Access {
            keys,
            source,
            everybody: self.insecure_no_auth,
            origins: origins.collect::<Result<_, _>>()?,
            hosts: hosts.collect::<Result<_, _>>()?,
        };
        Ok((access, warnings))
    }
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
