use super::*;
use crate::listing::RemoteFile;

struct Folder {
    store: Store,
    folder: tempfile::TempDir,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    Folder {
        store: Store::new(folder.path().join("models")),
        folder,
    }
}

impl Folder {
    /// A model as a pull leaves it, its files three bytes each.
    fn add(&self, repo: &str, quant: &str, commit: char, files: &[&str]) -> Record {
        let (owner, name) = repo.split_once('/').unwrap();
        let repo = RepoName {
            owner: owner.into(),
            name: name.into(),
        };
        let commit = commit.to_string().repeat(40);
        let file = |name: &&str| RemoteFile {
            name: (*name).into(),
            bytes: 3,
            sha256: "0".repeat(64),
        };
        let record = Record::new(
            &repo,
            quant.into(),
            commit.clone(),
            files.iter().map(file).collect(),
        );
        for name in files {
            let path = self.store.file_path(&repo, &commit, name);
            create_folder(path.parent().unwrap()).unwrap();
            fs::write(path, "abc").unwrap();
        }
        self.store.write(&record).unwrap();
        record
    }

    fn found(&self, text: &str) -> String {
        match self.store.find(text) {
            Ok(model) => model.record.model_name().to_string(),
            Err(error) => format!("{} {error}", error.code()),
        }
    }
}

#[test]
fn a_model_is_found_by_as_much_of_its_name_as_fits_it_alone() {
    let all = folder();
    assert!(all.store.models().is_empty());
    all.add("a/b", "Q4_K_M", 'a', &["b-Q4_K_M.gguf"]);
    all.add("a/b", "Q8_0", 'a', &["b-Q8_0.gguf"]);
    all.add("x/b", "Q8_0", 'b', &["b-Q8_0.gguf"]);
    all.add("x/y", "Q4_1", 'b', &["y.gguf"]);
    for (text, name) in [
        ("hf.co/a/b", "hf.co/a/b:Q4_K_M"),
        ("https://huggingface.co/a/b:q8_0", "hf.co/a/b:Q8_0"),
        ("a/b", "hf.co/a/b:Q4_K_M"),
        ("b", "hf.co/a/b:Q4_K_M"),
        ("Y", "hf.co/x/y:Q4_1"),
        ("x/b", "hf.co/x/b:Q8_0"),
    ] {
        assert_eq!(all.found(text), name, "{text}");
    }
    assert!(
        all.found("b:Q8_0")
            .contains("any of hf.co/a/b:Q8_0, hf.co/x/b:Q8_0")
    );
    for text in ["hf.co/a/b:Q2_K", "hf.co/a/c"] {
        let message = all.found(text);
        assert!(
            message.contains(&format!("`worker-orcd pull {text}`")),
            "{message}"
        );
    }
    assert!(all.found("hf.co/a/../b").starts_with("USAGE "));
    for text in ["q", "../a", "m.gguf"] {
        let message = all.found(text);
        assert!(
            message.contains("neither a file nor a model") && message.contains("worker-orcd pull"),
            "{message}"
        );
    }
}

#[test]
fn a_model_whose_file_is_gone_or_cut_is_not_used() {
    let all = folder();
    all.add(
        "a/b",
        "Q4_0",
        'a',
        &["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"],
    );
    let model = all.store.find("b").unwrap();
    assert!(model.usable().unwrap().ends_with("b-00001-of-00002.gguf"));
    fs::write(model.path.with_file_name("b-00002-of-00002.gguf"), "ab").unwrap();
    let error = all
        .store
        .find("b")
        .unwrap()
        .usable()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`worker-orcd pull hf.co/a/b:Q4_0`"),
        "{error}"
    );
}

#[test]
fn a_removal_takes_what_no_other_model_has_and_says_how_much() {
    let all = folder();
    all.add("a/b", "Q4_0", 'a', &["b-Q4_0.gguf"]);
    all.add("a/b", "Q8_0", 'a', &["b-Q8_0.gguf"]);
    let other = all.add("x/y", "Q8_0", 'a', &["y.gguf"]);
    let repo = all.store.find("a/b:Q4_0").unwrap().record.repo();
    let part = all.store.part_path(&repo, &"1".repeat(64));
    fs::write(&part, "12345").unwrap();
    let remove = |text| all.store.remove(&all.store.find(text).unwrap()).unwrap();
    assert_eq!(
        remove("a/b:Q4_0"),
        Removed {
            bytes: 3,
            left_in_hf_cache: 0
        }
    );
    assert!(all.store.find("a/b:Q8_0").unwrap().is_whole && part.is_file());
    // With the last model of a repository goes all of it.
    assert_eq!(remove("a/b").bytes, 8);
    assert!(!all.store.repo_folder(&repo).parent().unwrap().exists());
    assert!(all.store.find("y").unwrap().is_whole);
    assert_eq!(all.store.models().len(), 1);
    assert_eq!(all.store.find("y").unwrap().record, other);
}

#[test]
fn what_lies_in_hugging_faces_cache_stays_there() {
    let all = folder();
    let record = all.add("a/b", "Q4_0", 'a', &["b.gguf"]);
    let blob = all.folder.path().join("blob");
    fs::write(&blob, "abc").unwrap();
    let place = all
        .store
        .file_path(&record.repo(), &record.commit, "b.gguf");
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(&blob, &place).unwrap();
    let model = all.store.find("b").unwrap();
    assert!(model.is_whole);
    let removed = all.store.remove(&model).unwrap();
    assert_eq!(
        removed,
        Removed {
            bytes: 0,
            left_in_hf_cache: 3
        }
    );
    assert!(blob.is_file() && !place.exists());
}

#[test]
fn a_repository_that_is_being_pulled_is_not_removed() {
    let all = folder();
    let record = all.add("a/b", "Q4_0", 'a', &["b.gguf"]);
    let model = all.store.find("b").unwrap();
    let lock = all
        .store
        .lock(&record.repo(), || panic!("nobody has it"))
        .unwrap();
    let error = all.store.remove(&model).unwrap_err().to_string();
    assert!(error.contains("hf.co/a/b is being pulled"), "{error}");
    drop(lock);
    all.store.remove(&model).unwrap();
}

#[test]
fn a_record_that_was_changed_or_copied_is_passed_over() {
    let all = folder();
    let record = all.add("a/b", "Q4_0", 'a', &["b.gguf"]);
    let path = all.store.record_path(&record.repo(), "Q4_0");
    fs::copy(&path, path.with_file_name("Q8_0.json")).unwrap();
    assert_eq!(all.store.models().len(), 1);
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace("\"b.gguf\"", "\"../../b.gguf\"")).unwrap();
    assert!(all.store.models().is_empty());
}
