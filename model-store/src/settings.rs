//! Where models are kept, and which hub is asked.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::error::Error;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where models are kept and come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of all that was pulled.
    pub models_dir: PathBuf,
    /// The hub: `http` or `https`, with a host.
    pub endpoint: Url,
    /// What the hub knows this person by.
    pub token: Option<Token>,
    /// Hugging Face's own cache, if it can be anywhere.
    pub hf_cache: Option<PathBuf>,
}

/// The header `Authorization` for the hub. It is never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    fn new(text: &str) -> Result<Self, Error> {
        let header = HeaderValue::from_str(&format!("Bearer {text}"));
        let mut header = header.map_err(|_| {
            Error::Usage("HF_TOKEN holds characters that no token has; set it anew".to_owned())
        })?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl Settings {
    /// What `models_dir` (the flag) and variables say: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `XDG_DATA_HOME`, `HOME`. An empty variable counts as none.
    ///
    /// # Errors
    /// [`Error::Usage`] with the variable's name.
    pub fn new(
        models_dir: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| match variable(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Some(Err(_)) => Err(Error::Usage(format!("{name} is not valid UTF-8"))),
        };
        Ok(Self {
            models_dir: models_folder(models_dir, variable)?,
            endpoint: endpoint(text("HF_ENDPOINT")?)?,
            token: text("HF_TOKEN")?.as_deref().map(Token::new).transpose()?,
            hf_cache: hf_cache(&variable),
        })
    }
}

/// The folder of models: the one given, or `worker-orcd/models` in the person's data folder, by `XDG_DATA_HOME` or
/// `HOME`.
///
/// # Errors
/// [`Error::Usage`]: nothing says whose.
pub fn models_folder(
    given: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Error> {
    let in_data_folder = || {
        let data = folder("XDG_DATA_HOME", &variable);
        let data = data.or_else(|| Some(folder("HOME", &variable)?.join(".local/share")))?;
        Some(data.join("worker-orcd/models"))
    };
    given.or_else(in_data_folder).ok_or_else(|| {
        Error::Usage(
            "there is no folder for models: neither XDG_DATA_HOME nor HOME is set; give --models-dir DIR".to_owned(),
        )
    })
}

/// A folder that a variable names. One that is not absolute counts as none, as XDG has it.
fn folder(name: &str, variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

fn hf_cache(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || {
        let cache = folder("XDG_CACHE_HOME", variable);
        let cache = cache.or_else(|| Some(folder("HOME", variable)?.join(".cache")))?;
        Some(cache.join("huggingface"))
    };
    folder("HF_HUB_CACHE", variable)
        .or_else(|| Some(folder("HF_HOME", variable).or_else(home)?.join("hub")))
}

fn endpoint(given: Option<String>) -> Result<Url, Error> {
    let text = given.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    // The text is not shown: it may hold a password.
    let wrong = |why: &str| {
        Error::Usage(format!(
            "HF_ENDPOINT {why}; give an address such as {DEFAULT_ENDPOINT}"
        ))
    };
    let url: Url = text.parse().map_err(|_| wrong("is no address"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("is no http or https address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "holds a user, which would not be used; a token goes into HF_TOKEN",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Settings::new(None, variable)
    }

    #[test]
    fn folders_follow_xdg_and_hugging_faces_own_variables() {
        for (variables, models, cache) in [
            (
                &[("HOME", "/h")][..],
                "/h/.local/share/worker-orcd/models",
                "/h/.cache/huggingface/hub",
            ),
            (
                &[
                    ("HOME", "/h"),
                    ("XDG_DATA_HOME", "/d"),
                    ("XDG_CACHE_HOME", "/c"),
                ],
                "/d/worker-orcd/models",
                "/c/huggingface/hub",
            ),
            (
                &[("HOME", "/h"), ("XDG_DATA_HOME", "here"), ("HF_HOME", "/f")],
                "/h/.local/share/worker-orcd/models",
                "/f/hub",
            ),
            (
                &[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/x")],
                "/h/.local/share/worker-orcd/models",
                "/x",
            ),
        ] {
            let settings = settings(variables).unwrap();
            assert_eq!(settings.models_dir, PathBuf::from(models));
            assert_eq!(settings.hf_cache, Some(cache.into()));
            assert_eq!(settings.endpoint.as_str(), "https://huggingface.co/");
        }
        let homeless = settings(&[]).unwrap_err().to_string();
        assert!(homeless.contains("--models-dir"), "{homeless}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_without_being_shown() {
        for (name, value) in [
            ("HF_ENDPOINT", "secret"),
            ("HF_ENDPOINT", "file:///secret"),
            ("HF_ENDPOINT", "https://u:secret@hub"),
            ("HF_TOKEN", "secret\nX: y"),
        ] {
            let error = settings(&[("HOME", "/h"), (name, value)]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && !text.contains("secret"), "{text}");
            assert_eq!(error.code(), "USAGE");
        }
        let with_token = settings(&[("HOME", "/h"), ("HF_TOKEN", " secret ")]).unwrap();
        assert!(!format!("{with_token:?}").contains("secret"));
        assert_eq!(with_token.token.unwrap().header(), "Bearer secret");
    }
}
