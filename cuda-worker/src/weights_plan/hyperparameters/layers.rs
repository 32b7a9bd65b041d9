//! In what the layers of a model differ.

use orcd_shared::gguf::{Array, Value};

use super::keys::Keys;
use super::rope;
use crate::weights_plan::architectures::{Architecture, Honored, Layers};
use crate::weights_plan::{LayerKind, PlanError, RopeSpec};

/// Layers of the second kind, as `ModelShape` has them.
type Set = [u64; 16];

const MOST: u32 = 1024;

/// Base of the rotation of layers with a window.
const BASE: &str = "rope.freq_base_swa";
/// Which layers have a window.
const PATTERN: &str = "attention.sliding_window_pattern";

/// The two kinds, and which layers are of the second.
pub(super) fn read(
    keys: &mut Keys<'_>,
    architecture: &Architecture,
    n_layers: u32,
    rope: RopeSpec,
) -> Result<([LayerKind; 2], Set), PlanError> {
    if n_layers > MOST {
        let reason = format!("at most {MOST} are supported");
        return Err(keys.refused("block_count", n_layers, reason));
    }
    let window = window(keys, architecture)?;
    let first = LayerKind { window, rope };
    match architecture.layers {
        Layers::Alike => {
            if window > 0 {
                check_alike(keys, n_layers, rope)?;
            }
            Ok(([first; 2], Set::default()))
        }
        Layers::Unrotated { period } => {
            let second = LayerKind {
                window,
                rope: RopeSpec { pairs: 0, ..rope },
            };
            Ok(([first, second], set(n_layers, |i| (i + 1) % period == 0)))
        }
        // Without a window all layers are global ones.
        Layers::Windows { .. } if window == 0 => Ok(([first; 2], Set::default())),
        Layers::Windows { period, base } => {
            let first = LayerKind { window: 0, rope };
            let own = match base {
                // Stretched as in the others.
                None => RopeSpec {
                    base: keys.opt_positive(BASE)?.map_or(rope.base, f64::from),
                    ..rope
                },
                Some(base) => {
                    let base = keys.positive_or(BASE, base)?;
                    rope::with_base(rope, architecture, base)
                }
            };
            let second = LayerKind { window, rope: own };
            let with_window = windows(keys, n_layers, period)?;
            Ok(([first, second], with_window))
        }
    }
}

fn window(keys: &mut Keys<'_>, architecture: &Architecture) -> Result<u32, PlanError> {
    const KEY: &str = "attention.sliding_window";
    let honored = architecture
        .honors
        .iter()
        .find_map(|honored| match honored {
            Honored::Window { absent } => Some(*absent),
            _ => None,
        });
    let Some(absent) = honored else {
        return Ok(0);
    };
    let found = keys.metadata.opt_u32(&keys.name(KEY))?;
    Ok(match found {
        Some(window) => window,
        None if absent == 0 => 0,
        None => keys.take(KEY, absent),
    })
}

/// That all layers have the window and the base of all.
fn check_alike(keys: &Keys<'_>, n_layers: u32, rope: RopeSpec) -> Result<(), PlanError> {
    if windows(keys, n_layers, 0)? != set(n_layers, |_| true) {
        let found = keys.metadata.get(&keys.name(PATTERN));
        let found = found.map_or_else(String::new, Value::describe);
        let reason = format!("but all layers of {} have the window", keys.prefix);
        return Err(keys.refused(PATTERN, found, reason));
    }
    match keys.opt_positive(BASE)? {
        Some(base) if f64::from(base) != rope.base => {
            let reason = format!("must be rope.freq_base, {}", rope.base);
            Err(keys.refused(BASE, base, reason))
        }
        _ => Ok(()),
    }
}

/// By the file's pattern: a period, or a word for each layer. Else by the architecture's period.
fn windows(keys: &Keys<'_>, n_layers: u32, period: u32) -> Result<Set, PlanError> {
    let all_but_last = |period: u32| set(n_layers, |i| period == 0 || i % period + 1 < period);
    match keys.metadata.get(&keys.name(PATTERN)) {
        None => Ok(all_but_last(period)),
        Some(Value::Array(Array::Bool(has))) if has.len() == n_layers as usize => {
            Ok(set(n_layers, |i| has.get(i as usize) == Some(&true)))
        }
        Some(Value::Array(other)) => {
            let reason = format!("must be a period or {n_layers} words yes or no");
            let found = Value::Array(other.clone()).describe();
            Err(keys.refused(PATTERN, found, reason))
        }
        Some(_) => Ok(all_but_last(keys.metadata.u32(&keys.name(PATTERN))?)),
    }
}

fn set(n_layers: u32, has: impl Fn(u32) -> bool) -> Set {
    let mut set = Set::default();
    for layer in (0..n_layers).filter(|i| has(*i)) {
        if let Some(word) = set.get_mut(layer as usize / 64) {
            *word |= 1 << (layer % 64);
        }
    }
    set
}
