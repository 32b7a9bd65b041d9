//! Who speaks, and which bytes that version stands for.

/// Raised with every change of a message's bytes.
pub const PROTOCOL: u32 = 13;

/// The build that speaks: package version, for messages to people.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// The bytes of every message. A change here is a change of what two builds say to each other: if it
/// is meant, raise [`PROTOCOL`] and put the new bytes in. The two Hellos never change.
#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use crate::constraint::Constraint;
    use crate::error::ErrorCode;
    use crate::job::{CacheScope, Finish, JobKey, JobOptions, JobSpec};
    use crate::kv::{PageCounts, PoolManifest};
    use crate::logit_bias::LogitBias;
    use crate::protocol::frame::{self, HEADER_BYTES};
    use crate::protocol::message::{
        Device, KvSize, LoadRequest, LoadSource, Serve, StepReport, StepToken, ToSupervisor,
        ToWorker, TokenLogprobs, WorkerInfo,
    };
    use crate::sampling::SamplingParams;
    use crate::weights::{ContentHash, FileStamp, ModelIdentity, WeightsManifest};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::PROTOCOL;

    /// Both directions: the message has these bytes after its length, and these bytes are the message.
    /// Spaces in `hex` are for the reader.
    fn golden<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: &M, hex: &str) {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).unwrap();
        let (length, body) = bytes.split_at(HEADER_BYTES);
        assert_eq!(length, (body.len() as u32).to_le_bytes());
        let written: String = body.iter().map(|b| format!("{b:02x}")).collect();
        let expected: String = hex.split_whitespace().collect();
        assert_eq!(
            written, expected,
            "bytes of {message:?} changed: if that is meant, raise PROTOCOL (now {PROTOCOL})"
        );
        let (read, taken) = frame::decode::<M>(&bytes).unwrap().unwrap();
        assert_eq!((&read, taken), (message, bytes.len()));
    }

    const HASH: ContentHash = ContentHash([
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 255,
    ]);

    fn manifest() -> WeightsManifest {
        WeightsManifest {
            model: ModelIdentity {
                hash: HASH,
                stamps: vec![FileStamp {
                    device: 259,
                    inode: 7,
                    bytes: 491_400_032,
                    modified_ns: 1_700_000_000_123_456_789,
                    changed_ns: -1,
                }],
            },
            layout_version: 0x0123_4567,
            backend: "cpu".into(),
            image_bytes: 485_452_288,
            sample_checksum: 0x0123_4567_89ab_cdef,
        }
    }

    const HASH_BYTES: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
    const MANIFEST: &str = "\
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff 01 fb0301 07 fc602b4a1d fd2a9a0b7bfc392f2f 01 \
        fc67452301 03637075 fc006aef1c fdefcdab8967452301";

    fn pool() -> PoolManifest {
        PoolManifest {
            id: [7; 16],
            backend: "cpu".into(),
            pages: 300,
            bytes: 1 << 30,
            fingerprint: HASH.0,
        }
    }

    const POOL: &str = "07070707070707070707070707070707 03637075 fb2c01 fc00000040 \
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    #[test]
    fn hello_is_variant_zero_for_ever() {
        let (protocol, build) = (7, String::from("0.1.0"));
        golden(
            &ToWorker::Hello {
                protocol,
                build: build.clone(),
            },
            "00 07 05 302e312e30",
        );
        golden(
            &ToSupervisor::Hello { protocol, build },
            "00 07 05 302e312e30",
        );
    }

    #[test]
    fn frame_is_a_little_endian_length_and_the_message() {
        let mut bytes = Vec::new();
        frame::encode(&ToWorker::Cancel(JobKey(300)), &mut bytes).unwrap();
        assert_eq!(bytes, [4, 0, 0, 0, 3, 0xfb, 0x2c, 0x01]);
    }

    #[test]
    fn supervisor_to_worker() {
        let mut load = LoadRequest {
            model_path: "/m.gguf".into(),
            device: Device::Cuda(1),
            context: Some(4096),
            parallel: None,
            threads: Some(2),
            max_gap_ms: Some(50),
            kv: None,
            end_tokens: vec![151_643, 151_645],
            engines: 1,
            weights: None,
            pool: None,
            model_hash: None,
            run: 0,
        };
        let head = "01 07 2f6d2e67677566";
        let tail = "01 01 01fb0010 00 0102 0132 00 02 fc5b500200 fc5d500200 01";
        golden(
            &ToWorker::Load(Box::new(load.clone())),
            &format!("{head} {tail} 00 00 00 00"),
        );
        for (size, bytes) in [
            (KvSize::Bytes(1 << 30), "00 fc00000040"),
            (KvSize::Share(0.5), "01 0000003f"),
            (KvSize::Pages(300), "02 fb2c01"),
        ] {
            load.kv = Some(size);
            golden(
                &ToWorker::Load(Box::new(load.clone())),
                &format!(
                    "{head} 01 01 01fb0010 00 0102 0132 01 {bytes} 02 fc5b500200 fc5d500200 01 00 00 00 00"
                ),
            );
        }
        load.kv = None;
        load.device = Device::Cpu;
        load.weights = Some(manifest());
        load.pool = Some(pool());
        load.model_hash = Some(HASH);
        load.run = u64::MAX;
        let tail = "00 01fb0010 00 0102 0132 00 02 fc5b500200 fc5d500200 01";
        let load = ToWorker::Load(Box::new(load));
        golden(
            &load,
            &format!("{head} {tail} 01 {MANIFEST} 01 {POOL} 01 {HASH_BYTES} fdffffffffffffffff"),
        );

        let job = JobSpec {
            key: JobKey(300),
            prompt: vec![7985, 264],
            emitted: vec![5],
            max_tokens: 64,
            sampling: SamplingParams {
                temperature: 1.0,
                top_p: 0.5,
                top_k: 40,
                min_p: 0.0,
                repetition_penalty: 1.5,
                frequency_penalty: -2.0,
                presence_penalty: 0.5,
                choice: 3,
                seed: u64::MAX,
            },
            options: JobOptions {
                ignore_end: true,
                top_logprobs: Some(5),
                logit_bias: LogitBias::new(vec![(300, -100.0), (7, 1.0)], 1000).unwrap(),
                constraint: None,
                cache: CacheScope::Job,
            },
        };
        let submit = "02 fb2c01 08 311f0000 08010000 04 05000000 40 \
                      0000803f 0000003f 28 00000000 0000c03f 000000c0 0000003f 03 fdffffffffffffffff \
                      01 0105 02 07 0000803f fb2c01 0000c8c2";
        golden(
            &ToWorker::Submit(Box::new(job.clone())),
            &format!("{submit} 00 00"),
        );
        let constraints = [
            (Constraint::JsonSchema("{}".into()), "00 02 7b7d"),
            (Constraint::Regex("a".into()), "01 01 61"),
            (Constraint::Lark("a".into()), "02 01 61"),
        ];
        for (constraint, bytes) in constraints {
            let mut job = job.clone();
            job.options.constraint = Some(constraint);
            golden(
                &ToWorker::Submit(Box::new(job)),
                &format!("{submit} 01 {bytes} 00"),
            );
        }
        let mut salted = job;
        salted.options.cache = CacheScope::Salt([7; 16]);
        golden(
            &ToWorker::Submit(Box::new(salted)),
            &format!("{submit} 00 01 07070707070707070707070707070707"),
        );
        golden(&ToWorker::Cancel(JobKey(300)), "03 fb2c01");
        golden(&ToWorker::Shutdown, "04");
        let serve = Serve {
            epoch: 300,
            keep: true,
            settled: false,
            replays: 64,
        };
        golden(&ToWorker::Serve(serve), "05 fb2c01 01 00 40");
        golden(&ToWorker::Settled, "06");
    }

    #[test]
    fn worker_to_supervisor() {
        golden(&ToSupervisor::LoadProgress { percent: 75 }, "01 4b");

        let mut info = WorkerInfo {
            device_name: "gpu".into(),
            compute_capability: Some("9.0".into()),
            runtime_version: Some("13.0".into()),
            memory_used: 1 << 30,
            memory_total: 80 << 30,
            resident: true,
            context: 4096,
            parallel: 8,
            kv_pages: 300,
            kv_page_bytes: 1 << 20,
            quant_kind: "Q4_K_M".into(),
            load_source: LoadSource::File,
            load_ms: 900,
            model_hash: HASH,
            arithmetic: "a-1".into(),
            weights: None,
            pool: None,
        };
        let rest = "fc00000040 fd0000000014000000 01 fb0010 08 fb2c01 fc00001000 06 51345f4b5f4d";
        golden(
            &ToSupervisor::Ready(Box::new(info.clone())),
            &format!(
                "02 03 677075 01 03 392e30 01 04 31332e30 {rest} 00 fb8403 {HASH_BYTES} 03 612d31 00 00"
            ),
        );
        info.compute_capability = None;
        info.runtime_version = None;
        info.load_source = LoadSource::Handle;
        info.weights = Some(manifest());
        info.pool = Some(pool());
        golden(
            &ToSupervisor::Ready(Box::new(info)),
            &format!(
                "02 03 677075 00 00 {rest} 01 fb8403 {HASH_BYTES} 03 612d31 01 {MANIFEST} 01 {POOL}"
            ),
        );

        let failed = ToSupervisor::LoadFailed {
            code: ErrorCode::CudaError,
            message: "no".into(),
        };
        golden(&failed, "03 08 02 6e6f");

        let token = |key, index, id, finish| StepToken {
            key: JobKey(key),
            index,
            id,
            finish,
        };
        let step = StepReport {
            step: 1000,
            step_us: 368,
            tokens: vec![
                token(1, 0, 151_645, Some(Finish::Eos)),
                token(2, 9, 5, Some(Finish::MaxTokens)),
                token(3, 9, 5, Some(Finish::ContextFull)),
                token(4, 300, 5, None),
            ],
            logprobs: vec![TokenLogprobs {
                key: JobKey(4),
                logprob: -1.0,
                top: vec![(300, -0.5)],
            }],
        };
        let tokens = "01 00 fc5d500200 0100  02 09 05 0101  03 09 05 0102  04 fb2c01 05 00";
        golden(
            &ToSupervisor::Step(step),
            &format!("04 fbe803 fb7001 04 {tokens} 01 04 000080bf 01 fb2c01 000000bf"),
        );

        let failed = ToSupervisor::JobFailed {
            key: JobKey(2),
            code: ErrorCode::VramOom,
            message: "kv".into(),
        };
        golden(&failed, "05 02 07 02 6b76");
        golden(&ToSupervisor::Cancelled(JobKey(2)), "06 02");
        let beat = ToSupervisor::Heartbeat {
            steps: 251,
            running: 2,
            kv: PageCounts {
                used: 9,
                cached: 300,
                refused: 1,
            },
        };
        golden(&beat, "07 fbfb00 02 09 fb2c01 01");
        let fatal = ToSupervisor::Fatal {
            code: ErrorCode::Internal,
            message: "x".into(),
        };
        golden(&fatal, "08 0a 01 78");
        golden(&ToSupervisor::Residency { resident: true }, "09 01");
        golden(&ToSupervisor::Preempted(JobKey(300)), "0a fb2c01");
        let begun = ToSupervisor::Begun {
            key: JobKey(2),
            cached: 300,
        };
        golden(&begun, "0b 02 fb2c01");
    }

    #[test]
    fn error_codes_keep_their_numbers() {
        let codes = [
            ErrorCode::InvalidRequest,
            ErrorCode::ContextLengthExceeded,
            ErrorCode::JobExists,
            ErrorCode::QueueFull,
            ErrorCode::Draining,
            ErrorCode::WorkerUnavailable,
            ErrorCode::InsufficientVram,
            ErrorCode::VramOom,
            ErrorCode::CudaError,
            ErrorCode::ModelLoadFailed,
            ErrorCode::Internal,
            ErrorCode::InferenceTimeout,
            ErrorCode::Cancelled,
            ErrorCode::WorkerCrashed,
            ErrorCode::ReplayDiverged,
            ErrorCode::InsufficientMemory,
            ErrorCode::Unauthorized,
            ErrorCode::ForbiddenOrigin,
        ];
        // A code that is added comes after them.
        assert!(ErrorCode::ALL.starts_with(&codes));
        for (number, code) in ErrorCode::ALL.into_iter().enumerate() {
            golden(&code, &format!("{number:02x}"));
        }
    }
}
