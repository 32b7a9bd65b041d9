//! Compiles `cuda/` and the bridge to it. The instruction set is fixed per file, not taken from the
//! machine that builds: what a processor has is found when the worker starts.

#[path = "build/cuda.rs"]
mod cuda;

use std::path::{Path, PathBuf};

/// Folders under `cuda/` with sources or headers of what is compiled here.
const FOLDERS: [&str; 6] = ["engine", "cpu", "arith", "formats", "ops", "include"];
/// Files in `cuda/` itself.
const FILES: [&str; 4] = ["bridge.cc", "bridge.h", "probe.cc", "probe.h"];

/// Files that say what crosses to C++.
const BRIDGES: [&str; 2] = ["src/ffi.rs", "src/ffi/types.rs"];

/// A file with kernels for one instruction set, and its flags.
const AVX512: (&str, &[&str]) = ("isa_avx512.cc", &["-march=x86-64-v4", "-mavx512vnni"]);
/// Flags of every other file on x86-64.
const X86_BASE: &str = "-march=x86-64-v3";

fn main() {
    let root = PathBuf::from("../cuda");
    println!("cargo::rerun-if-changed=build.rs");
    for bridge in BRIDGES {
        println!("cargo::rerun-if-changed={bridge}");
    }
    for watched in FOLDERS.iter().chain(&FILES) {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo::rerun-if-env-changed=DOCS_RS");
    if links_nothing() {
        return;
    }
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");

    let (special, base): (Vec<_>, Vec<_>) = sources(&root)
        .into_iter()
        .partition(|path| path.file_name().is_some_and(|name| name == AVX512.0));

    let mut bridge = cxx_build::bridges(BRIDGES);
    // Where cxx has just put the headers that it makes, for the compilers that are started without it.
    let headers =
        PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default()).join("cxxbridge/include");
    settings(&mut bridge, &root);
    bridge.files(&base);
    if x86 {
        bridge.flag(X86_BASE);
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        bridge.define("ORCD_WITH_CUDA", None);
        bridge.objects(cuda::compile(&root, &headers, x86));
    }
    bridge.compile("orcd_engine");

    if x86 {
        let mut kernels = cc::Build::new();
        settings(&mut kernels, &root);
        kernels.include(&headers);
        AVX512.1.iter().for_each(|flag| {
            kernels.flag(flag);
        });
        kernels.files(&special).compile("orcd_avx512");
    }
}

/// Whether this is a build of rustdoc or clippy, which need no C++: the bridge is a macro, and nothing
/// is linked. Cargo runs this script for clippy apart from other builds, so neither redoes the other.
fn links_nothing() -> bool {
    let clippy = std::env::var_os("RUSTC_WORKSPACE_WRAPPER")
        .is_some_and(|wrapper| Path::new(&wrapper).ends_with("clippy-driver"));
    clippy || std::env::var_os("DOCS_RS").is_some()
}

/// What the bits of a token depend on: no contraction but written `fmaf`, nothing of fast-math. The
/// two relaxations change no result; they let square roots be instructions and selects be vectors.
fn settings(build: &mut cc::Build, root: &Path) {
    build
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        .debug(true)
        .include(root)
        .include(root.join("include"))
        .flag("-ffp-contract=off")
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .flag("-Wall")
        .flag("-Wextra");
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let in_folders = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = in_folders
        .chain(FILES.iter().map(|file| root.join(file)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cc"))
        .collect();
    files.sort();
    files
}
