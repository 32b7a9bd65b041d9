//! Weights images: packing loses nothing, a sealed image is nobody's to change, and it is taken over
//! only if it is the right one.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

mod engine_support;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use cuda_worker::engine::{Backend, Weights};
use cuda_worker::loader::{self, Source, attach_or_load, examine};
use cuda_worker::scheduler::step_engine::EngineError;
use cuda_worker::weights_plan;
use engine_support::assert_same;
use engine_support::model::{Model, in_chunks, of_many_chunks, options, prompt};
use orcd_shared::gguf::{GgufFile, TensorType};
use orcd_shared::protocol::message::LoadSource;
use orcd_shared::weights::WeightsManifest;

fn load(model: &Model) -> (Backend, Weights) {
    let backend = Backend::cpu().unwrap();
    let (weights, _) = loader::load(&backend, &model.source(), |_| ()).unwrap();
    (backend, weights)
}

#[test]
fn packing_loses_nothing_of_any_type() {
    for ty in TensorType::ALL {
        let model = Model::with_type("tiny-qwen2", ty);
        let (_, weights) = load(&model);
        for tensor in &model.plan.tensors {
            let raw = synth_model::tensor_data(&model.file, &tensor.info).unwrap();
            let mut back = vec![0xa5; raw.len()];
            weights.read(tensor, 0, &mut back).unwrap();
            assert!(back == raw, "{ty} {}", tensor.info.name);
            // Any single row.
            let row_bytes = raw.len() / tensor.rows as usize;
            let row = tensor.rows - 1;
            let mut one = vec![0xa5; row_bytes];
            weights.read(tensor, row, &mut one).unwrap();
            assert!(
                one == raw[row as usize * row_bytes..],
                "{ty} {}",
                tensor.info.name
            );
        }
    }
}

#[test]
fn rows_may_be_written_in_any_chunks_and_order() {
    let model = Model::named("tiny-qwen2");
    let (backend, whole) = load(&model);
    let mut chunks = backend.allocate(model.plan.image_bytes).unwrap();
    for tensor in &model.plan.tensors {
        let raw = synth_model::tensor_data(&model.file, &tensor.info).unwrap();
        let row_bytes = raw.len() / tensor.rows as usize;
        for (i, chunk) in raw
            .chunks(row_bytes * 7)
            .enumerate()
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            chunks.write(tensor, 7 * *i as u64, chunk).unwrap();
        }
    }
    chunks.seal().unwrap();
    let bytes = |weights: &Weights| {
        let mut all = vec![0; weights.bytes() as usize];
        File::from(weights.share().unwrap())
            .read_exact_at(&mut all, 0)
            .unwrap();
        all
    };
    assert!(bytes(&whole) == bytes(&chunks));
}

#[test]
fn tensors_read_in_many_chunks_arrive_whole() {
    let model = Model::of(&of_many_chunks(TensorType::Q4_0));
    let longest = model.plan.tensors.iter().map(|t| t.info.nbytes).max();
    assert!(
        longest > Some(1 << 20),
        "every tensor is one chunk: {longest:?}"
    );
    let (_, weights) = load(&model);
    for tensor in &model.plan.tensors {
        let raw = synth_model::tensor_data(&model.file, &tensor.info).unwrap();
        let mut back = vec![0xa5; raw.len()];
        weights.read(tensor, 0, &mut back).unwrap();
        assert!(back == raw, "{}", tensor.info.name);
    }
}

#[test]
fn a_file_cut_short_ends_loading_and_hashing_with_the_name_of_a_tensor() {
    let (say, hear) = std::sync::mpsc::channel();
    let loading = std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        synth_model::write(
            &of_many_chunks(TensorType::F32),
            &synth_model::Options::default(),
            &path,
        )
        .unwrap();
        let file = GgufFile::open(&path).unwrap();
        let plan = weights_plan::plan(file.header()).unwrap();
        // Anew each time: what was hashed once is known.
        let source = || Source::of(&file, &plan).unwrap();
        let mut moments = 0;
        loader::hash(&source(), || moments += 1).unwrap();
        assert!(moments > 10, "the supervisor would think that it hangs");
        let open = File::options().write(true).open(&path).unwrap();
        open.set_len(file.header().data_offset + (2 << 20)).unwrap();
        for _ in 0..20 {
            let loaded = loader::load(&Backend::cpu().unwrap(), &source(), |_| ()).map(drop);
            let hashed = loader::hash(&source(), || ()).map(drop);
            for ended in [loaded, hashed] {
                say.send(ended.map_err(|e| e.to_string())).unwrap();
            }
        }
    });
    // Readers that are left waiting would keep loading from ending.
    for _ in 0..40 {
        let ended = hear.recv_timeout(Duration::from_secs(60)).unwrap();
        let error = ended.unwrap_err();
        assert!(
            error.contains("model.gguf") && error.contains("tensor"),
            "{error}"
        );
    }
    loading.join().unwrap();
}

#[test]
fn a_sealed_image_cannot_be_changed_by_anybody() {
    let model = Model::named("tiny-qwen2");
    let (_, mut weights) = load(&model);
    let mut file = File::from(weights.share().unwrap());
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(5).is_err());
    assert!(file.set_len(weights.bytes() + 5).is_err());
    let tensor = &model.plan.tensors[0];
    let row = vec![0; (tensor.info.nbytes / tensor.rows) as usize];
    assert!(
        matches!(weights.write(tensor, 0, &row), Err(EngineError::Invalid(m)) if m.contains("sealed"))
    );
}

#[test]
fn writes_and_reads_outside_of_a_tensor_are_refused() {
    let model = Model::named("tiny-qwen2");
    let backend = Backend::cpu().unwrap();
    let mut weights = backend.allocate(model.plan.image_bytes).unwrap();
    let tensor = &model.plan.tensors[0];
    let row = (tensor.info.nbytes / tensor.rows) as usize;
    let mut refuse = |tensor: &_, first: u64, bytes: usize| {
        let found = weights.write(tensor, first, &vec![0; bytes]);
        assert!(
            matches!(found, Err(EngineError::Invalid(_))),
            "{first} {bytes}: {found:?}"
        );
        let found = weights.read(tensor, first, &mut vec![0; bytes]);
        assert!(
            matches!(found, Err(EngineError::Invalid(_))),
            "{first} {bytes}: {found:?}"
        );
    };
    refuse(tensor, 0, row - 1);
    refuse(tensor, tensor.rows, row);
    refuse(tensor, tensor.rows - 1, 2 * row);
    refuse(tensor, u64::MAX, row);
    let moved = |offset| cuda_worker::weights_plan::PlannedTensor {
        offset,
        ..tensor.clone()
    };
    refuse(&moved(model.plan.image_bytes), 0, row);
    refuse(&moved(1), 0, row);
    refuse(&moved(u64::MAX / 256 * 256), 0, row);
}

#[test]
fn an_engine_needs_an_image_that_is_sealed_and_fits() {
    let model = Model::named("tiny-qwen2");
    let backend = Backend::cpu().unwrap();
    let open = backend.allocate(model.plan.image_bytes).unwrap();
    let unsealed = open.share().unwrap();
    let refused = backend.engine(&model.plan, open, &options()).unwrap_err();
    assert!(refused.to_string().contains("not sealed"), "{refused}");
    let refused = backend
        .attach(unsealed, model.plan.image_bytes)
        .unwrap_err();
    assert!(refused.to_string().contains("not sealed"), "{refused}");
    let (_, weights) = load(&model);
    let fd = weights.share().unwrap();
    let refused = backend
        .attach(fd, model.plan.image_bytes + 256)
        .unwrap_err();
    assert!(refused.to_string().contains("expected"), "{refused}");
    let plain = tempfile::tempfile().unwrap();
    assert!(backend.attach(plain.into(), 4096).is_err());
}

#[test]
fn an_engine_on_the_image_of_another_gives_the_same_bits() {
    let model = Model::named("tiny-llama");
    let (backend, weights) = load(&model);
    let fd = weights.share().unwrap();
    let mut first = backend.engine(&model.plan, weights, &options()).unwrap();
    let tokens = prompt(40, 1);
    let expected = in_chunks(&mut first, 0, &tokens, 40);
    let kept = first.share_weights().unwrap();
    drop(first);
    for fd in [fd, kept] {
        let image = backend.attach(fd, model.plan.image_bytes).unwrap();
        let mut second = backend.engine(&model.plan, image, &options()).unwrap();
        assert_same(
            &in_chunks(&mut second, 2, &tokens, 13),
            &expected,
            "attached",
        );
    }
}

#[test]
fn a_held_image_is_taken_only_with_the_right_manifest() {
    let model = Model::named("tiny-qwen2");
    let backend = Backend::cpu().unwrap();
    let mut told = Vec::new();
    let loaded = attach_or_load(&backend, &model.source(), None, None, |p| {
        told.push(p);
    });
    let loaded = loaded.unwrap();
    assert_eq!(loaded.source, LoadSource::File);
    assert!(
        told.is_sorted() && [0, 25, 50, 75, 100].iter().all(|p| told.contains(p)),
        "{told:?}"
    );
    let right = loaded.manifest.clone();
    let again = |manifest: &WeightsManifest, fd| {
        let source = model.source();
        let retained = examine(&backend, &source, (manifest, fd), None, || ()).unwrap();
        let mut told = Vec::new();
        let again = attach_or_load(&backend, &source, retained, None, |p| told.push(p)).unwrap();
        assert!([0, 25, 50, 75, 100].iter().all(|p| told.contains(p)));
        assert_eq!(again.manifest, right, "however it came");
        again.source
    };
    let source = |change: &dyn Fn(&mut WeightsManifest)| {
        let mut manifest = right.clone();
        change(&mut manifest);
        again(&manifest, loaded.weights.share().unwrap())
    };
    assert_eq!(source(&|_| ()), LoadSource::Handle);
    assert_eq!(source(&|m| m.layout_version ^= 1), LoadSource::File);
    // As a build that places tensors otherwise, in an image of the same size.
    let mut moved = model.plan.clone();
    moved.tensors.swap(0, 1);
    let fd = loaded.weights.share().unwrap();
    let source_of_moved = Source::of(&model.file, &moved).unwrap();
    let retained = examine(&backend, &source_of_moved, (&right, fd), None, || ());
    assert!(retained.unwrap().is_none());
    assert_eq!(source(&|m| m.backend = "cuda".into()), LoadSource::File);
    assert_eq!(source(&|m| m.image_bytes += 256), LoadSource::File);
    // A file that was touched is hashed again, and is the same; one of other content is not.
    let touched = |m: &mut WeightsManifest| m.model.stamps[0].modified_ns += 1;
    assert_eq!(source(&touched), LoadSource::Handle);
    let moved = |m: &mut WeightsManifest| m.model.stamps[0].inode += 1;
    assert_eq!(source(&moved), LoadSource::Handle);
    let other = |m: &mut WeightsManifest| {
        m.model.stamps[0].changed_ns += 1;
        m.model.hash.0[31] ^= 1;
    };
    assert_eq!(source(&other), LoadSource::File);
    // The right manifest with a descriptor of something else.
    let file = tempfile::tempfile().unwrap();
    assert_eq!(again(&right, file.into()), LoadSource::File);
}

#[test]
fn an_image_in_which_rows_are_not_as_its_checksum_says_is_loaded_anew() {
    let model = Model::named("tiny-qwen2");
    let backend = Backend::cpu().unwrap();
    let (file, plan) = (&model.file, &model.plan);
    let loaded = attach_or_load(&backend, &model.source(), None, None, |_| ()).unwrap();
    // As another build might have packed it: a type's rows in another order.
    for ty in [TensorType::F32, plan.tensors[0].info.ty] {
        let mut image = backend.allocate(plan.image_bytes).unwrap();
        for tensor in &plan.tensors {
            let mut raw = synth_model::tensor_data(file, &tensor.info).unwrap();
            if tensor.info.ty == ty {
                let half = raw.len() / 2;
                raw.rotate_left(half);
            }
            image.write(tensor, 0, &raw).unwrap();
        }
        image.seal().unwrap();
        let fd = image.share().unwrap();
        let retained = examine(
            &backend,
            &model.source(),
            (&loaded.manifest, fd),
            None,
            || (),
        )
        .unwrap();
        assert!(retained.is_some());
        let again = attach_or_load(&backend, &model.source(), retained, None, |_| ()).unwrap();
        assert_eq!(again.source, LoadSource::File, "{ty}");
    }
}

#[test]
fn a_file_with_other_content_than_the_service_began_with_is_refused() {
    let backend = Backend::cpu().unwrap();
    let shape = synth_model::Shape::named("tiny-qwen2").unwrap();
    let (a, b) = (Model::of(&shape), Model::seeded(&shape, 2));
    let of = |m: &Model| attach_or_load(&backend, &m.source(), None, None, |_| ()).unwrap();
    let first = of(&a);
    let hash = first.manifest.model.hash;
    let expected = Some(hash);
    let refused = attach_or_load(&backend, &b.source(), None, expected, |_| ()).unwrap_err();
    let found = of(&b).manifest.model.hash;
    let named = [hash.to_string(), found.to_string()];
    let refused = refused.to_string();
    assert!(named.iter().all(|hash| refused.contains(hash)), "{refused}");
    assert!(refused.contains("was written to since"), "{refused}");
    // With an image at hand it is found out before anything is loaded: there may be no memory for two.
    let retained = (&first.manifest, first.weights.share().unwrap());
    let refused = examine(&backend, &b.source(), retained, expected, || ()).unwrap_err();
    assert!(refused.to_string().contains("was written to since"));
    let same = attach_or_load(&backend, &a.source(), None, expected, |_| ());
    assert_eq!(same.unwrap().manifest.model.hash, hash);
}

/// The hash of the file's bytes does not depend on how they are read; `b3sum` prints the same.
#[test]
fn a_models_hash_is_the_blake3_hash_of_its_file() {
    for model in [
        Model::named("tiny-qwen2"),
        Model::of(&of_many_chunks(TensorType::F32)),
    ] {
        let expected = blake3::hash(model.file.bytes());
        let backend = Backend::cpu().unwrap();
        let (_, identity) = loader::load(&backend, &model.source(), |_| ()).unwrap();
        assert_eq!(identity.hash.0, *expected.as_bytes());
        assert_eq!(identity.hash.to_string(), format!("blake3:{expected}"));
        assert_eq!(loader::hash(&model.source(), || ()).unwrap(), identity.hash);
        // Hashed ahead altogether, in part or not at all.
        let source = model.source();
        let ahead: [&dyn Fn(); 2] = [&|| (), &|| std::thread::sleep(Duration::from_millis(20))];
        for meanwhile in ahead {
            source.hash_during(meanwhile);
        }
        let (_, identity) = loader::load(&backend, &source, |_| ()).unwrap();
        assert_eq!(identity.hash.0, *expected.as_bytes());
    }
}

/// What was hashed ahead stands for the file only while nobody writes to it.
#[test]
fn a_file_that_is_written_to_after_it_was_hashed_is_not_loaded() {
    let model = Model::of(&of_many_chunks(TensorType::F32));
    let source = model.source();
    source.hash_during(|| std::thread::sleep(Duration::from_millis(20)));
    let open = File::options().write(true).open(model.file.path()).unwrap();
    let mut last = [0];
    let at = open.metadata().unwrap().len() - 1;
    File::open(model.file.path())
        .unwrap()
        .read_exact_at(&mut last, at)
        .unwrap();
    open.write_all_at(&[last[0] ^ 1], at).unwrap();
    let refused = loader::load(&Backend::cpu().unwrap(), &source, |_| ()).unwrap_err();
    assert!(
        refused.to_string().contains("while it was read"),
        "{refused}"
    );
}
