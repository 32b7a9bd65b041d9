//! All that is measured of a file on a text.

use std::iter;

use crate::Failure;
use crate::greedy::{self, Partings};
use crate::logits::Reader;
use crate::peer::Peer;
use crate::quality::{Quality, Row};
use crate::source::Source;
use crate::text::Windows;

/// A file on a text.
#[derive(Debug)]
pub(crate) struct Measured {
    /// From the exact logits to those of the engine.
    pub(crate) quality: Quality,
    /// Beside another engine.
    pub(crate) beside: Option<Beside>,
}

/// The same file on the same tokens in another engine.
#[derive(Debug)]
pub(crate) struct Beside {
    /// What it is, with its version.
    pub(crate) peer: String,
    /// From the exact logits to its own.
    pub(crate) its_quality: Quality,
    /// From its logits to those of the engine, on all windows.
    pub(crate) of_its: Quality,
    /// Where greedy tokens of the engine are not its own.
    pub(crate) partings: Partings,
}

/// Compares the engine with exact logits on every position that a token follows.
///
/// # Errors
/// What the sources say; rows of different lengths.
pub(crate) fn against<'a>(
    exact: &mut dyn Source,
    reader: &mut Reader,
    windows: impl Iterator<Item = &'a Vec<u32>>,
) -> Result<Measured, Failure> {
    let mut quality = Quality::default();
    for window in windows {
        let rows = exact.rows(window)?.zip(reader.rows(window)?);
        for ((exact, found), next) in rows.zip(followers(window)) {
            let (exact, found) = (Row::new(exact?), Row::new(found?));
            if let Some(next) = next {
                quality.add(&exact, &found, next)?;
            }
        }
    }
    Ok(Measured {
        quality,
        beside: None,
    })
}

/// Compares the engine with another one, and both with exact logits in as many windows as `exact_windows` says.
///
/// # Errors
/// What the sources say; rows of different lengths.
pub(crate) fn beside(
    exact: &mut Reader,
    reader: &mut Reader,
    peer: &mut Peer,
    text: &Windows,
    exact_windows: usize,
) -> Result<Measured, Failure> {
    let (mut quality, mut its_quality) = (Quality::default(), Quality::default());
    let mut of_its = Quality::default();
    for (window, picked) in text.spread(exact_windows) {
        let exact: Box<dyn Iterator<Item = _>> = if picked {
            Box::new(exact.rows(window)?.map(Some))
        } else {
            Box::new(iter::repeat_with(|| None))
        };
        let both = reader.rows(window)?.zip(peer.rows(window)?);
        for (((found, its), exact), next) in both.zip(exact).zip(followers(window)) {
            let (found, its, exact) = (found?, its?, exact.transpose()?);
            let Some(next) = next else { continue };
            let (found, its) = (Row::new(found), Row::new(its));
            of_its.add(&its, &found, next)?;
            if let Some(exact) = exact.map(Row::new) {
                quality.add(&exact, &found, next)?;
                its_quality.add(&exact, &its, next)?;
            }
        }
    }
    let prompts = greedy::prompts(&text.windows, &text.begin);
    let generated = reader.generate(&prompts, greedy::GENERATED)?;
    Ok(Measured {
        quality,
        beside: Some(Beside {
            peer: peer.name.clone(),
            its_quality,
            of_its,
            partings: Partings::find(peer, exact, &prompts, &generated)?,
        }),
    })
}

/// What follows each token of a window. Nothing follows the last, whose rows are read all the same: those of the next
/// window come after them.
fn followers(window: &[u32]) -> impl Iterator<Item = Option<u32>> {
    window.iter().skip(1).copied().map(Some).chain([None])
}
