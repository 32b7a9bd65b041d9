//! How large an engine is made. Pure.

use std::time::Duration;

use orcd_shared::protocol::message::{Device, LoadRequest};

use crate::engine::EngineOptions;

/// What is taken unless asked for.
struct Defaults {
    /// Sequences at once. Each takes memory for a whole context, and a standby as much again: who serves
    /// more asks for more.
    slots: u32,
    /// Most tokens in one step. A GPU reads prompts the faster the more of them it has at once; a
    /// processor's step takes that many times as long, so that more would only make each stream slower.
    batch: u32,
    /// Time that a step with prompt tokens is to take at most, ms.
    max_gap_ms: u32,
}

const fn defaults(device: Device) -> Defaults {
    match device {
        Device::Cpu => Defaults {
            slots: 4,
            batch: 64,
            max_gap_ms: 100,
        },
        Device::Cuda(_) => Defaults {
            slots: 8,
            batch: 2048,
            max_gap_ms: 50,
        },
    }
}

/// Running streams are to wait no longer than this for a step that also reads prompts.
#[must_use]
pub fn max_gap(request: &LoadRequest) -> Duration {
    let by_default = defaults(request.device).max_gap_ms;
    Duration::from_millis(request.max_gap_ms.unwrap_or(by_default).into())
}

/// The engine to make for `request`, best first: as asked for, or with fewer sequences for want of
/// memory if their number is left to this worker. `trained` is the model's own context.
///
/// # Errors
/// A request that this model can't honor.
pub fn candidates(request: &LoadRequest, trained: u32) -> Result<Vec<EngineOptions>, String> {
    let context = request.context.unwrap_or(trained);
    if context == 0 || context > trained {
        return Err(format!(
            "context {context} is not in 1..={trained}, what the model was made for; give another \
             --context or none"
        ));
    }
    let Defaults { slots, batch, .. } = defaults(request.device);
    let slots = match request.parallel {
        Some(0) => return Err("parallel is 0; give --parallel 1 or more".into()),
        Some(slots) => vec![slots],
        None => std::iter::successors(Some(slots), |&s| (s > 1).then_some(s / 2)).collect(),
    };
    let options = slots.into_iter().map(|slots| EngineOptions {
        slots,
        context,
        max_batch_tokens: batch.max(slots),
        threads: request.threads.unwrap_or(0),
        kv_limit_tokens: request.kv_limit_tokens.unwrap_or(0),
        float_activations: false,
    });
    Ok(options.collect())
}

/// Addresses that a process takes beside an engine's memory, on a processor of so many cores: stacks of
/// the engine's threads, of those that fill the image (one a core) and of the loader's, and room for
/// the allocator.
#[must_use]
pub fn addresses(threads: u32, cores: u64) -> u64 {
    const STACK_BYTES: u64 = 8 << 20;
    const OTHER_THREADS: u64 = 8;
    const ALLOCATOR_BYTES: u64 = 64 << 20;
    let threads = u64::from(threads).max(cores);
    ALLOCATOR_BYTES + (threads + OTHER_THREADS) * STACK_BYTES
}

/// The percentages to tell when `now` is reached after `told`, so that each quarter is told even if
/// the loader jumps over it.
pub fn milestones(told: Option<u8>, now: u8) -> impl Iterator<Item = u8> {
    let passed = move |&p: &u8| told.is_none_or(|told| p > told) && p < now;
    let last = told.is_none_or(|told| now > told).then_some(now);
    [0, 25, 50, 75].into_iter().filter(passed).chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> LoadRequest {
        LoadRequest::new(String::new(), Device::Cpu)
    }

    #[test]
    fn number_of_sequences_is_halved_only_if_nobody_asked_for_it() {
        let slots = |parallel| {
            let found = candidates(
                &LoadRequest {
                    parallel,
                    ..request()
                },
                100,
            )
            .unwrap();
            found.iter().map(|o| o.slots).collect::<Vec<_>>()
        };
        assert_eq!(slots(None), [4, 2, 1]);
        assert_eq!(slots(Some(7)), [7]);
    }

    #[test]
    fn a_step_holds_at_least_one_token_of_each_sequence() {
        let request = LoadRequest {
            parallel: Some(1000),
            ..request()
        };
        assert_eq!(candidates(&request, 100).unwrap()[0].max_batch_tokens, 1000);
    }

    #[test]
    fn a_gap_is_bounded_as_asked_for() {
        let mut request = request();
        assert_eq!(max_gap(&request), Duration::from_millis(100));
        request.max_gap_ms = Some(7);
        assert_eq!(max_gap(&request), Duration::from_millis(7));
    }

    #[test]
    fn context_is_the_models_own_or_a_shorter_one() {
        let context = |context| {
            candidates(
                &LoadRequest {
                    context,
                    ..request()
                },
                100,
            )
            .map(|found| found[0].context)
        };
        assert_eq!((context(None), context(Some(60))), (Ok(100), Ok(60)));
        assert!(context(Some(101)).unwrap_err().contains("101"));
        assert!(context(Some(0)).is_err());
        assert!(
            candidates(
                &LoadRequest {
                    parallel: Some(0),
                    ..request()
                },
                100
            )
            .is_err()
        );
    }

    #[test]
    fn every_quarter_is_told_once() {
        let of = |told, now| milestones(told, now).collect::<Vec<_>>();
        assert_eq!(of(None, 0), [0]);
        assert_eq!(of(None, 100), [0, 25, 50, 75, 100]);
        assert_eq!(of(Some(0), 60), [25, 50, 60]);
        assert_eq!(of(Some(25), 26), [26]);
        assert_eq!(of(Some(26), 26), [0; 0]);
        assert_eq!(of(Some(74), 75), [75]);
    }
}
