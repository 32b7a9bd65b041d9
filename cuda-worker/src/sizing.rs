//! How large an engine is made. Pure.

use std::time::Duration;

use orcd_shared::kv;
use orcd_shared::protocol::message::{Device, KvSize, LoadRequest};

use crate::engine::EngineOptions;

/// What is taken unless asked for.
struct Defaults {
    /// Sequences at once. They reserve nothing of the KV memory; what each takes beside it is small. A processor
    /// computes them one after the other.
    slots: u32,
    /// The share of what is left beside everything else that the KV pool takes.
    kv_share: f32,
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
            // The machine's memory is not this process's alone.
            kv_share: 0.25,
            batch: 64,
            max_gap_ms: 100,
        },
        Device::Cuda(_) => Defaults {
            slots: 256,
            // The driver takes some for graphs and code, beside what is counted.
            kv_share: 0.85,
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
/// memory if their number is left to this worker. `trained` is the model's own context. The KV pool is a single page
/// each: [`pool`] says how large it is.
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
        kv_pages: 1,
        poison: false,
        float_activations: false,
    });
    Ok(options.collect())
}

/// A pool that nobody asked for is no smaller than a job of so many positions needs.
const LEAST_POSITIONS: u32 = 2048;

/// What a KV pool is made of and for.
#[derive(Debug, Clone, Copy)]
pub struct PoolContext {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes that there are for it.
    pub room: u64,
    /// Sequences at once.
    pub slots: u32,
    /// Positions of a sequence at most.
    pub context: u32,
}

/// Pages of the pool for `request`: no more than all sequences together could ever use. It may be more than there is
/// room for, if a smaller one is of no use or not what was asked for.
///
/// # Errors
/// A request for less than a page.
pub fn pool(request: &LoadRequest, cx: &PoolContext) -> Result<u32, String> {
    let context_pages = kv::pages(cx.context.into());
    let useful = u64::from(cx.slots) * context_pages;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a size, neither negative nor exact"
    )]
    let shared = |share: f32| (cx.room as f64 * f64::from(share)) as u64 / cx.page_bytes.max(1);
    let pages = match request.kv {
        Some(KvSize::Pages(pages)) => pages.into(),
        Some(KvSize::Bytes(bytes)) => {
            let pages = bytes / cx.page_bytes.max(1);
            if pages == 0 {
                return Err(format!(
                    "KV memory of {bytes} bytes holds no page: {} positions take {} bytes; give a larger --kv-memory",
                    kv::PAGE_TOKENS,
                    cx.page_bytes
                ));
            }
            pages.min(useful)
        }
        Some(KvSize::Share(share)) => shared(share).clamp(1, useful),
        None => {
            let least = kv::pages(cx.context.min(LEAST_POSITIONS).into());
            shared(defaults(request.device).kv_share).clamp(least, useful)
        }
    };
    Ok(u32::try_from(pages).unwrap_or(u32::MAX))
}

/// Whether a pool is large enough for so many sequences at once that nobody asked for: if each can grow beyond its
/// first page.
#[must_use]
pub fn serves(pages: u32, slots: u32) -> bool {
    pages / 2 >= slots || slots == 1
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

    /// Room for 1 000 pages of 100 bytes.
    const CX: PoolContext = PoolContext {
        page_bytes: 100,
        room: 100_000,
        slots: 8,
        context: 64_000,
    };

    fn pages(device: Device, kv: Option<KvSize>, cx: &PoolContext) -> Result<u32, String> {
        let request = LoadRequest {
            kv,
            ..LoadRequest::new(String::new(), device)
        };
        pool(&request, cx)
    }

    #[test]
    fn a_pool_takes_a_share_of_the_room_unless_a_size_is_given() {
        let of = |device, kv| pages(device, kv, &CX);
        assert_eq!(of(Device::Cpu, None), Ok(250));
        assert_eq!(of(Device::Cuda(0), None), Ok(850));
        assert_eq!(of(Device::Cpu, Some(KvSize::Share(0.5))), Ok(500));
        assert_eq!(of(Device::Cpu, Some(KvSize::Bytes(7_099))), Ok(70));
        // Also where there is no room for it: then it is refused for its size.
        assert_eq!(of(Device::Cpu, Some(KvSize::Bytes(200_000))), Ok(2000));
    }

    #[test]
    fn no_pool_is_larger_than_its_sequences_could_use() {
        let small = PoolContext {
            slots: 2,
            context: 100,
            ..CX
        };
        for kv in [
            None,
            Some(KvSize::Share(1.0)),
            Some(KvSize::Bytes(u64::MAX)),
        ] {
            assert_eq!(pages(Device::Cuda(0), kv, &small), Ok(4), "{kv:?}");
        }
        // But for the one that a worker before had.
        assert_eq!(pages(Device::Cpu, Some(KvSize::Pages(9)), &small), Ok(9));
    }

    #[test]
    fn a_pool_is_of_use_or_it_is_refused() {
        let none = PoolContext { room: 0, ..CX };
        assert_eq!(pages(Device::Cpu, None, &none), Ok(32));
        let short = PoolContext {
            context: 100,
            ..none
        };
        assert_eq!(pages(Device::Cpu, None, &short), Ok(2));
        let refused = pages(Device::Cpu, Some(KvSize::Bytes(99)), &CX).unwrap_err();
        assert!(refused.contains("64 positions take 100 bytes"), "{refused}");
    }

    #[test]
    fn sequences_at_once_are_as_many_as_find_two_pages_each() {
        assert!(serves(512, 256) && serves(0, 1));
        assert!(!serves(511, 256));
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
