//! The pool of an engine that is being made: one that the supervisor holds, if it is what this worker would make, or a
//! new one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use orcd_shared::kv::PoolManifest;
use orcd_shared::weights::{ContentHash, FileStamp};

use super::ledger::Ledger;
use crate::engine::{Backend, EngineOptions, KvMemory};
use crate::log;
use crate::scheduler::step_engine::EngineError;
use crate::weights_plan::ModelPlan;

/// What the supervisor holds of an earlier worker.
#[derive(Debug)]
pub(crate) struct HeldPool<'a> {
    pub(crate) manifest: &'a PoolManifest,
    pub(crate) memory: OwnedFd,
    pub(crate) ledger: OwnedFd,
}

/// A pool for an engine.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) memory: KvMemory,
    /// `None`: it can't outlive this process.
    pub(crate) ledger: Option<Ledger>,
    pub(crate) manifest: PoolManifest,
    /// It is the one that the supervisor holds.
    pub(crate) is_held: bool,
}

/// Of all that the values in a page depend on beside its tokens: the model, the layout of a page, and the program that
/// computes them, by the stamp of its file: another one may compute in another way.
///
/// # Errors
/// Sizes of the model out of bounds.
pub(crate) fn fingerprint(
    backend: &Backend,
    plan: &ModelPlan,
    content: ContentHash,
) -> Result<[u8; 32], EngineError> {
    let mut hash = blake3::Hasher::new_derive_key("worker-orcd 2026-11-30 what computes KV pages");
    hash.update(&content.0);
    hash.update(backend.name().as_bytes());
    hash.update(&backend.layout_version().to_le_bytes());
    hash.update(&backend.page_layout(plan)?.to_le_bytes());
    if let Ok(stamp) = File::open("/proc/self/exe").and_then(|file| FileStamp::of(&file)) {
        for number in [stamp.device, stamp.inode, stamp.bytes] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&stamp.modified_ns.to_le_bytes());
    }
    Ok(hash.finalize().into())
}

impl Pool {
    /// The held pool if it fits, else a new one.
    ///
    /// # Errors
    /// There is no memory for a new one.
    pub(crate) fn of(
        backend: &Backend,
        plan: &ModelPlan,
        options: &EngineOptions,
        fingerprint: [u8; 32],
        held: Option<HeldPool<'_>>,
    ) -> Result<Self, EngineError> {
        let mut manifest = PoolManifest {
            id: [0; 16],
            backend: backend.name().into(),
            pages: options.kv_pages,
            bytes: backend.kv_bytes(plan, options)?,
            fingerprint,
        };
        if let Some(held) = held {
            manifest.id = held.manifest.id;
            if *held.manifest == manifest {
                match attach(backend, &manifest, held.memory, held.ledger) {
                    Ok(pool) => return Ok(pool),
                    Err(why) => log::line(format_args!("the retained KV pool is of no use: {why}")),
                }
            } else {
                log::line(format_args!(
                    "the retained KV pool is not what this worker makes: it begins with an empty one"
                ));
            }
        }
        let memory = backend.allocate_kv(manifest.bytes)?;
        let ledger = match new_id().and_then(|id| Ok((id, Ledger::create(manifest.pages)?))) {
            Ok((id, ledger)) => {
                manifest.id = id;
                Some(ledger)
            }
            Err(error) => {
                log::line(format_args!("the KV pool gets no ledger: {error}"));
                None
            }
        };
        Ok(Self {
            memory,
            ledger,
            manifest,
            is_held: false,
        })
    }
}

fn attach(
    backend: &Backend,
    manifest: &PoolManifest,
    memory: OwnedFd,
    ledger: OwnedFd,
) -> Result<Pool, String> {
    let ledger = Ledger::open(ledger, manifest.pages).map_err(|e| e.to_string())?;
    let memory = backend.attach_kv(memory, manifest.bytes);
    Ok(Pool {
        memory: memory.map_err(|e| e.to_string())?,
        ledger: Some(ledger),
        manifest: manifest.clone(),
        is_held: true,
    })
}

/// 128 random bits.
fn new_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut id)?;
    Ok(id)
}
