//! The fingerprint: what outputs depend on beside the request. Two services with the same one give the same bytes for the
//! same request, on whatever machine and device, and one goes on with what the other began.

use blake3::Hasher;
use orcd_shared::protocol::message::WorkerInfo;

/// Begins the hash, so that it is no other's.
const CONTEXT: &str = "worker-orcd 2026-11-30 what outputs depend on beside requests";
/// How ids become text, beside the bytes of each: how code points are put together and stop sequences found. Raised with
/// every change of a token event's text.
const TEXT: u32 = 1;
/// Bytes of it that are shown.
const SHOWN_BYTES: usize = 16;

/// That of a service whose model has this [identity](crate::text::TextModel::identity) of its text, and this worker.
#[must_use]
pub fn of(text: &[u8; 32], worker: &WorkerInfo) -> Box<str> {
    let mut hash = Hasher::new_derive_key(CONTEXT);
    hash.update(&TEXT.to_le_bytes());
    hash.update(text);
    hash.update(&worker.model_hash.0);
    hash.update(worker.arithmetic.as_bytes());
    shown(&hash)
}

/// As much of a hash as clients see.
pub(crate) fn shown(hash: &Hasher) -> Box<str> {
    let mut bytes = [0; SHOWN_BYTES];
    hash.finalize_xof().fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.into()
}

/// Adds bytes with their length, so that none can be taken for the next.
pub(crate) fn add(hash: &mut Hasher, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use orcd_shared::weights::ContentHash;

    use super::*;
    use crate::samples::info;

    #[test]
    fn it_says_what_decides_bits_and_nothing_else() {
        let first = of(&[1; 32], &info());
        assert_eq!(first.len(), 2 * SHOWN_BYTES);
        let elsewhere = WorkerInfo {
            device_name: "another".into(),
            compute_capability: Some("9.0".into()),
            context: 7,
            parallel: 9,
            kv_pages: 3,
            load_ms: 1,
            ..info()
        };
        assert_eq!(of(&[1; 32], &elsewhere), first);
        assert_ne!(of(&[2; 32], &info()), first);
        let model_hash = ContentHash([9; 32]);
        assert_ne!(
            of(
                &[1; 32],
                &WorkerInfo {
                    model_hash,
                    ..info()
                }
            ),
            first
        );
        let arithmetic = "a-2".into();
        assert_ne!(
            of(
                &[1; 32],
                &WorkerInfo {
                    arithmetic,
                    ..info()
                }
            ),
            first
        );
    }
}
