//! Names of models: `hf.co/OWNER/NAME[:QUANT]`, and what may stand in them.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The quantization that is taken where none is named.
pub const DEFAULT_QUANT: &str = "Q4_K_M";
/// How names of the hub begin; the first one is how they are written.
const HOSTS: [&str; 2] = ["hf.co/", "huggingface.co/"];
/// Longest owner, name or quantization, in bytes. The hub has 96 for its own.
const MAX_PART: usize = 96;
/// Longest name of a file, in bytes; file systems have 255, and `.part` comes behind it.
const MAX_FILE_NAME: usize = 200;

/// A repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoName {
    /// Who owns it: one component of a path.
    pub owner: String,
    /// What it is called: one component of a path.
    pub name: String,
}

/// A repository and one of the quantizations in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// The repository.
    pub repo: RepoName,
    /// The quantization, as it was given.
    pub quant: Option<String>,
}

/// A name as people may shorten it for a model that is there already: `[hf.co/][OWNER/]NAME[:QUANT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortName {
    /// Who owns it, if that was said.
    pub owner: Option<String>,
    /// The repository's name without its owner.
    pub name: String,
    /// The quantization, if one was named.
    pub quant: Option<String>,
}

impl RepoName {
    /// Whether both parts can be components of a path.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        is_part(&self.owner) && is_part(&self.name)
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf.co/{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repo.fmt(f)?;
        self.quant
            .iter()
            .try_for_each(|quant| write!(f, ":{quant}"))
    }
}

impl FromStr for ModelName {
    type Err = Error;

    /// Reads `hf.co/OWNER/NAME[:QUANT]`, also with the hub's long name and as a link.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| {
            Error::Usage(format!(
                "`{}` is no name of a model: {why}; give hf.co/OWNER/NAME or hf.co/OWNER/NAME:QUANT, such as \
                 hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M",
                text.escape_default()
            ))
        };
        let rest = after_host(text).ok_or_else(|| refused("it does not begin with hf.co/"))?;
        let (repo, quant) = with_quant(rest);
        let (owner, name) = repo
            .split_once('/')
            .ok_or_else(|| refused("it has no owner or no name"))?;
        let parts = [Some(owner), Some(name), quant];
        if !parts.into_iter().flatten().all(is_part) {
            return Err(refused(
                "owner, name and quantization are letters, digits, `-`, `_` and `.`, begin with a letter or \
                 digit and have no `..`",
            ));
        }
        Ok(Self {
            repo: RepoName {
                owner: owner.to_owned(),
                name: name.to_owned(),
            },
            quant: quant.map(str::to_owned),
        })
    }
}

impl ShortName {
    /// Reads what may be a model's name; `None` where it can only be a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, quant) = with_quant(after_host(text).unwrap_or(text));
        let (owner, name) = match repo.split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, repo),
        };
        let parts = [owner, Some(name), quant];
        let is_name = parts.into_iter().flatten().all(is_part) && !is_gguf(name);
        is_name.then(|| Self {
            owner: owner.map(str::to_owned),
            name: name.to_owned(),
            quant: quant.map(str::to_owned),
        })
    }
}

/// Whether `text` says that it is a name of the hub.
#[must_use]
pub fn has_host(text: &str) -> bool {
    after_host(text).is_some()
}

fn after_host(text: &str) -> Option<&str> {
    let text = text.strip_prefix("https://").unwrap_or(text);
    HOSTS.iter().find_map(|host| text.strip_prefix(host))
}

fn with_quant(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((repo, quant)) => (repo, Some(quant)),
        None => (text, None),
    }
}

/// Whether this can be the name of an owner, a repository or a quantization: a component of a path on every
/// system, which no option begins like.
#[must_use]
pub fn is_part(text: &str) -> bool {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    begins_well && text.len() <= MAX_PART && text.bytes().all(is_allowed) && !text.contains("..")
}

/// Whether a file may lie under this name in a folder of ours: one component of a path, without control
/// characters, drive letters, and whatever else means something to a system or a terminal.
#[must_use]
pub fn is_file_name(text: &str) -> bool {
    let begins_well = text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let is_allowed = |c: char| c.is_alphanumeric() || "-_.+ ()[]=,@".contains(c);
    begins_well
        && text.len() <= MAX_FILE_NAME
        && text.chars().all(is_allowed)
        && !text.contains("..")
}

/// Whether it is named as model files are.
#[must_use]
pub fn is_gguf(text: &str) -> bool {
    let ending = text.len().checked_sub(5).and_then(|at| text.get(at..));
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case(".gguf"))
}

/// Whether it is a digest of so many digits, as git and SHA-256 write them.
#[must_use]
pub fn is_digest(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_a_name_and_perhaps_a_quantization() {
        for (text, quant) in [
            ("hf.co/Qwen/Qwen2.5-0.5B_x", None),
            ("hf.co/Qwen/Qwen2.5-0.5B_x:q8_0", Some("q8_0")),
            ("huggingface.co/Qwen/Qwen2.5-0.5B_x", None),
            (
                "https://hf.co/Qwen/Qwen2.5-0.5B_x:UD-Q4_K_XL",
                Some("UD-Q4_K_XL"),
            ),
        ] {
            let name: ModelName = text.parse().unwrap();
            assert_eq!(
                (&*name.repo.owner, &*name.repo.name),
                ("Qwen", "Qwen2.5-0.5B_x")
            );
            assert_eq!(name.quant.as_deref(), quant, "{text}");
        }
        let name: ModelName = "https://huggingface.co/a/b:c".parse().unwrap();
        assert_eq!(name.to_string(), "hf.co/a/b:c");
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        let long = format!("hf.co/{}/b", "a".repeat(MAX_PART + 1));
        for text in [
            "",
            "a/b",
            "hf.co/",
            "hf.co/a",
            "hf.co/a/",
            "hf.co//b",
            "hf.co/a/b/c",
            "hf.co/../b",
            "hf.co/a/..",
            "hf.co/a/b..c",
            "hf.co/a/b:",
            "hf.co/a/b:../c",
            "hf.co/a/b:c:d",
            "hf.co/C:\\x/b",
            "hf.co/a/.b",
            "hf.co/-a/b",
            "hf.co/a\\b/c",
            "hf.co/a/b\n",
            "hf.co/a/b\0",
            "hf.co/a/ü",
            "http://hf.co/a/b",
            &long,
        ] {
            let error = text.parse::<ModelName>().unwrap_err();
            assert!(matches!(error, Error::Usage(_)), "{text:?}: {error}");
            let line = error.to_string();
            assert!(
                line.contains("hf.co/OWNER/NAME") && !line.contains(['\n', '\0']),
                "{line}"
            );
        }
    }

    #[test]
    fn what_ends_as_a_file_or_has_more_folders_is_a_path_and_no_short_name() {
        let short = |text| ShortName::parse(text).map(|n| (n.owner, n.name, n.quant));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(short("b"), Some((None, "b".into(), None)));
        assert_eq!(short("a/b:c"), Some((some("a"), "b".into(), some("c"))));
        assert_eq!(short("hf.co/a/b"), Some((some("a"), "b".into(), None)));
        for path in [
            "m.gguf", "a/m.GGUF", "/b", "./b", "../b", "a/b/c", "a b", "", "b:",
        ] {
            assert_eq!(short(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_files_name_is_one_component_without_tricks() {
        for good in ["a.gguf", "Müller (1).Q4_K_M.gguf", "m-00001-of-00002.gguf"] {
            assert!(is_file_name(good), "{good}");
        }
        let long = "x".repeat(MAX_FILE_NAME + 1);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "../a",
            "a\\b",
            "C:a",
            "a\nb",
            "a\x1b[2J",
            "a\u{202e}b",
            "-rf",
            ".hidden",
            "a..b",
            "a\0",
            &long,
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
