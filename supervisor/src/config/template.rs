//! `--chat-template`: a template in place of the model file's own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::text::MAX_TEMPLATE_BYTES;

/// The flag.
#[derive(Debug, clap::Args)]
pub(super) struct TemplateArgs {
    /// File with a chat template, Jinja, that takes the place of the model's own
    #[arg(long, value_name = "FILE", env = "ORCD_CHAT_TEMPLATE")]
    chat_template: Option<PathBuf>,
}

impl TemplateArgs {
    /// The template, if one is given.
    ///
    /// # Errors
    /// The file can't be read, is too large, or is not UTF-8.
    pub(super) fn read(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.chat_template else {
            return Ok(None);
        };
        let failed = |reason: String| {
            ConfigError::usage(format!(
                "--chat-template {}: {reason}; give a file with a Jinja template",
                path.display()
            ))
        };
        let bytes = read(path).map_err(|e| failed(e.to_string()))?;
        if bytes.len() > MAX_TEMPLATE_BYTES {
            return Err(failed(format!(
                "it has more than {MAX_TEMPLATE_BYTES} bytes"
            )));
        }
        let text = String::from_utf8(bytes).map_err(|e| failed(format!("not valid UTF-8: {e}")))?;
        if text.trim().is_empty() {
            return Err(failed("it is empty".to_owned()));
        }
        Ok(Some(text))
    }
}

/// The file's bytes, one more than the longest template at most.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_TEMPLATE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &Path) -> Result<Option<String>, ConfigError> {
        let chat_template = Some(path.to_owned());
        TemplateArgs { chat_template }.read()
    }

    #[test]
    fn a_template_is_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let longest = "é".repeat(MAX_TEMPLATE_BYTES / 2);
        std::fs::write(file.path(), &longest).unwrap();
        assert_eq!(of(file.path()).unwrap(), Some(longest));
        let none = TemplateArgs {
            chat_template: None,
        };
        assert_eq!(none.read().unwrap(), None);
    }

    #[test]
    fn what_is_no_template_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        for (path, reason) in [
            (dir.path().join("absent"), "No such file"),
            (dir.path().to_owned(), "directory"),
            (file("empty", b" \n"), "it is empty"),
            (file("binary", b"\xFF"), "not valid UTF-8"),
            (
                file("long", &vec![b'x'; MAX_TEMPLATE_BYTES + 1]),
                "more than 65536 bytes",
            ),
            (PathBuf::from("/dev/zero"), "more than 65536 bytes"),
        ] {
            let error = of(&path).unwrap_err().to_string();
            let named = format!("--chat-template {}: ", path.display());
            assert!(error.contains(&named) && error.contains(reason), "{error}");
        }
    }
}
