//! Which of a repository's files are the model that was asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::listing::{Listing, RemoteFile};
use crate::name::{DEFAULT_QUANT, is_part};

/// Most files of one model.
const MAX_PARTS: usize = 999;
/// Names that an error lists.
const MAX_LISTED: usize = 12;

/// A model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The quantization, upper case.
    pub quant: String,
    /// All of its files, the first one first.
    pub files: Vec<RemoteFile>,
}

/// The model of the quantization `wanted`; without one of [`DEFAULT_QUANT`], or the only one there is. Letters
/// may be upper or lower case. Where several end in the same letters (`X-Q4_K_M`, `X-UD-Q4_K_M`) it is the one
/// with the shortest name, since a longer one can be named.
///
/// # Errors
/// [`Error::NotFound`] with what there is instead, [`Error::Hub`] if a part is missing.
pub fn choose(listing: &Listing, wanted: Option<&str>) -> Result<Chosen, Error> {
    let models = models(&listing.files);
    let quant = wanted.unwrap_or(DEFAULT_QUANT);
    let mut fitting: Vec<_> = models.keys().filter(|stem| ends_in(stem, quant)).collect();
    fitting.sort_by_key(|stem| stem.len());
    let stem = match fitting[..] {
        [one] => one,
        [short, long, ..] if short.len() < long.len() => short,
        [] if wanted.is_none() && models.len() == 1 => {
            models.keys().next().ok_or_else(|| none(listing, quant))?
        }
        [] => return Err(none(listing, quant)),
        _ => {
            return Err(Error::NotFound(format!(
                "`{quant}` may mean several models: {}; name more of one, from the end",
                shown(fitting.iter().map(|stem| stem.as_str()))
            )));
        }
    };
    let quant = if ends_in(stem, quant) {
        quant
    } else {
        quant_of(stem)
    };
    Ok(Chosen {
        quant: quant.to_ascii_uppercase(),
        files: whole(stem, &models[stem])?,
    })
}

/// A name and its place among the parts of a model: (number from 1, count), or `None` for a whole file.
fn split(name: &str) -> (&str, Option<(usize, usize)>) {
    let stem = &name[..name.len().saturating_sub(".gguf".len())];
    let number = |text: &str| {
        let is_number = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let parts: Vec<&str> = stem.rsplitn(4, '-').collect();
    match parts[..] {
        [count, "of", no, rest] => match (number(no), number(count)) {
            (Some(no), Some(count)) => (rest, Some((no, count))),
            _ => (stem, None),
        },
        _ => (stem, None),
    }
}

/// All models of a listing by their names without `.gguf` and number. What goes beside a model (`mmproj`: a
/// projector for pictures; `imatrix`) is none.
fn models(files: &[RemoteFile]) -> BTreeMap<String, Vec<&RemoteFile>> {
    let mut models: BTreeMap<String, Vec<&RemoteFile>> = BTreeMap::new();
    for file in files {
        let (stem, _) = split(&file.name);
        let lower = stem.to_ascii_lowercase();
        if !lower.contains("mmproj") && !lower.contains("imatrix") {
            models.entry(stem.to_owned()).or_default().push(file);
        }
    }
    models
}

/// Whether a name ends in a quantization, behind a separator.
fn ends_in(stem: &str, quant: &str) -> bool {
    let Some(at) = stem.len().checked_sub(quant.len()) else {
        return false;
    };
    let (Some(before), Some(end)) = (stem.get(..at), stem.get(at..)) else {
        return false;
    };
    end.eq_ignore_ascii_case(quant) && (before.is_empty() || before.ends_with(['-', '.', '_']))
}

/// The quantization that a name most likely ends in.
fn quant_of(stem: &str) -> &str {
    let last = stem.rsplit(['-', '.']).next().unwrap_or(stem);
    if is_part(last) { last } else { DEFAULT_QUANT }
}

/// All parts in their order.
fn whole(stem: &str, files: &[&RemoteFile]) -> Result<Vec<RemoteFile>, Error> {
    let mut numbered: Vec<_> = files
        .iter()
        .map(|file| (split(&file.name).1, *file))
        .collect();
    numbered.sort_by_key(|(place, _)| *place);
    let count = match numbered[..] {
        [(None, file)] => return Ok(vec![file.clone()]),
        [(Some((_, count)), _), ..] if count <= MAX_PARTS => count,
        _ => 0,
    };
    let places = numbered.iter().map(|(place, _)| *place);
    if count == 0 || !places.eq((1..=count).map(|no| Some((no, count)))) {
        return Err(Error::Hub(format!(
            "the repository does not have all parts of {stem}, or has some twice: {} files are named as its parts",
            files.len()
        )));
    }
    Ok(numbered.into_iter().map(|(_, file)| file.clone()).collect())
}

fn none(listing: &Listing, quant: &str) -> Error {
    let models = models(&listing.files);
    let quants: BTreeSet<_> = models
        .keys()
        .map(|stem| quant_of(stem).to_ascii_uppercase())
        .collect();
    let mut message = if quants.is_empty() {
        "the repository has no GGUF file that can be taken".to_owned()
    } else {
        format!(
            "the repository has no `{quant}`; it has {}",
            shown(quants.iter().map(String::as_str))
        )
    };
    if let Some(refused) = listing.refused.first() {
        message.push_str(&format!(
            "; {} files are passed over, such as `{:.80}`: {}",
            listing.refused.len(),
            refused.name.escape_default(),
            refused.why
        ));
    }
    Error::NotFound(message)
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let mut text = names[..names.len().min(MAX_LISTED)].join(", ");
    if names.len() > MAX_LISTED {
        text.push_str(&format!(" and {} more", names.len() - MAX_LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let file = |name: &&str| RemoteFile {
            name: (*name).to_owned(),
            bytes: 1,
            sha256: "0".repeat(64),
        };
        Listing {
            commit: "a".repeat(40),
            files: names.iter().map(file).collect(),
            refused: Vec::new(),
        }
    }

    #[track_caller]
    fn chosen(names: &[&str], wanted: Option<&str>) -> (String, Vec<String>) {
        let chosen = choose(&listing(names), wanted).unwrap();
        (
            chosen.quant,
            chosen.files.into_iter().map(|file| file.name).collect(),
        )
    }

    fn refused(names: &[&str], wanted: Option<&str>) -> String {
        choose(&listing(names), wanted).unwrap_err().to_string()
    }

    const REPO: [&str; 5] = [
        "m-Q4_K_M.gguf",
        "m-UD-Q4_K_M.gguf",
        "m-q8_0.gguf",
        "mmproj-m-Q8_0.gguf",
        "m-IQ4_XS.gguf",
    ];

    #[test]
    fn a_quantization_is_the_end_of_a_files_name() {
        for (wanted, quant, file) in [
            (None, "Q4_K_M", "m-Q4_K_M.gguf"),
            (Some("q4_k_m"), "Q4_K_M", "m-Q4_K_M.gguf"),
            (Some("UD-Q4_K_M"), "UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
            (Some("Q8_0"), "Q8_0", "m-q8_0.gguf"),
        ] {
            assert_eq!(chosen(&REPO, wanted), (quant.into(), vec![file.into()]));
        }
        assert_eq!(chosen(&["SmolLM2.Q4_K_M.gguf"], None).0, "Q4_K_M");
    }

    #[test]
    fn the_only_model_is_taken_where_none_is_named() {
        let only = ["SmolLM2-135M-Instruct.Q4_1.gguf", "mmproj-F16.gguf"];
        assert_eq!(chosen(&only, None).0, "Q4_1");
        assert!(refused(&only, Some("Q8_0")).contains("no `Q8_0`; it has Q4_1"));
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let message = refused(&REPO, Some("Q5_K_M"));
        assert!(
            message.contains("no `Q5_K_M`; it has IQ4_XS, Q4_K_M, Q8_0"),
            "{message}"
        );
        assert!(refused(&REPO, Some("4_XS")).contains("no `4_XS`"));
        assert!(refused(&[], None).contains("no GGUF file"));
        let several = refused(&["a-Q8_0.gguf", "b-Q8_0.gguf"], Some("Q8_0"));
        assert!(several.contains("a-Q8_0, b-Q8_0"), "{several}");
        let mut folders = listing(&[]);
        folders.refused.push(crate::listing::RefusedFile {
            name: "Q8_0/\u{1b}m.gguf".into(),
            why: "reason",
        });
        let message = choose(&folders, None).unwrap_err().to_string();
        assert!(message.contains("Q8_0/\\u{1b}m.gguf`: reason"), "{message}");
    }

    #[test]
    fn a_split_model_is_whole_or_refused() {
        let (first, second) = (
            "m-Q4_K_M-00001-of-00002.gguf",
            "m-Q4_K_M-00002-of-00002.gguf",
        );
        let both = (
            "Q4_K_M".to_owned(),
            vec![first.to_owned(), second.to_owned()],
        );
        assert_eq!(chosen(&[second, first], None), both);
        for parts in [
            &[first][..],
            &[second],
            &[first, second, "m-Q4_K_M.gguf"],
            &[first, "m-Q4_K_M-00002-of-00003.gguf"],
            &[first, first],
            &["m-Q4_K_M-00001-of-00000.gguf"],
        ] {
            assert!(
                refused(parts, None).contains("does not have all parts of m-Q4_K_M"),
                "{parts:?}"
            );
        }
    }
}
