//! Compiles the kernels: one object per `.cu` file and architecture list, by whatever `nvcc` is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Folders under `cuda/` that need `nvcc`.
const FOLDERS: [&str; 3] = ["device", "gpu", "kernels"];
/// Compute capabilities that a release is built for, with PTX of the last for others that are newer than it: of 90, which
/// those between 90 and 120 can take too.
const ARCHITECTURES: &str = "80,86,89,120,90";
/// The file of instructions that Hopper alone has; it is compiled for that, whatever else is.
const HOPPER: &str = "matmul_warpgroup.cu";
const HOPPER_CODE: &str = "-gencode=arch=compute_90a,code=sm_90a";

/// Compiles all kernels and returns their objects; tells cargo what to link with them.
pub(crate) fn compile(root: &Path, headers: &Path, x86: bool) -> Vec<PathBuf> {
    for name in ["NVCC", "CUDA_HOME", "ORCD_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
    let nvcc = find_nvcc();
    let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    let mut flags: Vec<String> = [
        "-std=c++20",
        "-O3",
        "--fmad=false",
        "--expt-relaxed-constexpr",
        "-DORCD_WITH_CUDA",
    ]
    .map(Into::into)
    .to_vec();
    flags.extend(["-I".into(), root.display().to_string()]);
    flags.extend(["-I".into(), root.join("include").display().to_string()]);
    flags.extend(["-I".into(), headers.display().to_string()]);
    let host = if x86 {
        "-ffp-contract=off,-march=x86-64-v3"
    } else {
        "-ffp-contract=off"
    };
    flags.extend(["-Xcompiler".into(), host.into()]);
    let architectures = std::env::var("ORCD_CUDA_ARCHS").unwrap_or(ARCHITECTURES.into());
    let codes = code_flags(&architectures);
    flags.push(format!("-DORCD_CUDA_ARCHS=\"{architectures}\""));
    let hopper_codes = vec![HOPPER_CODE.to_owned()];

    let sources = Mutex::new(sources(root));
    let objects = Mutex::new(Vec::new());
    let jobs = std::env::var("NUM_JOBS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_usize);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(source) = sources.lock().ok().and_then(|mut s| s.pop()) {
                    let hopper = source.ends_with(HOPPER);
                    let codes = if hopper { &hopper_codes } else { &codes };
                    let object = compile_one(&nvcc, &flags, codes, &source, &out);
                    if let Ok(mut done) = objects.lock() {
                        done.push(object);
                    }
                }
            });
        }
    });
    link_runtime(&nvcc);
    let mut objects = objects.into_inner().unwrap_or_default();
    objects.sort();
    objects
}

/// `$NVCC`, `$CUDA_HOME`, the path, the folder that `make cuda-toolkit` fills: the first that answers.
fn find_nvcc() -> PathBuf {
    let toolkit = PathBuf::from("../.cuda/toolkit/bin/nvcc");
    let candidates = [
        std::env::var_os("NVCC").map(PathBuf::from),
        std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc")),
        Some(PathBuf::from("nvcc")),
        std::fs::canonicalize(toolkit).ok(),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|nvcc| {
            Command::new(nvcc)
                .arg("--version")
                .output()
                .is_ok_and(|o| o.status.success())
        })
        .unwrap_or_else(|| {
            fail("the feature `cuda` needs nvcc: run `make cuda-toolkit`, or set NVCC or CUDA_HOME")
        })
}

fn code_flags(architectures: &str) -> Vec<String> {
    let list: Vec<&str> = architectures
        .split(',')
        .map(str::trim)
        .filter(|a| !a.is_empty())
        .collect();
    if list.is_empty() || !list.iter().all(|a| a.bytes().all(|b| b.is_ascii_digit())) {
        fail(&format!(
            "ORCD_CUDA_ARCHS is '{architectures}'; give numbers such as 80,90"
        ));
    }
    let mut flags: Vec<String> = list
        .iter()
        .map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}"))
        .collect();
    flags.extend(
        list.last()
            .map(|a| format!("-gencode=arch=compute_{a},code=compute_{a}")),
    );
    flags
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    files.sort();
    files
}

fn compile_one(
    nvcc: &Path,
    flags: &[String],
    codes: &[String],
    source: &Path,
    out: &Path,
) -> PathBuf {
    // Files of different folders may share a name: the folder goes into the object's.
    let folder = source
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default();
    let stem = source.file_stem().unwrap_or_default();
    let object = out.join(format!(
        "cuda_{}_{}.o",
        folder.to_string_lossy(),
        stem.to_string_lossy()
    ));
    let status = Command::new(nvcc)
        .args(flags)
        .args(codes)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(&object)
        .status();
    if !status.is_ok_and(|s| s.success()) {
        fail(&format!("nvcc could not compile {}", source.display()));
    }
    object
}

/// The CUDA runtime is linked statically: the binary starts where there is no CUDA at all.
fn link_runtime(nvcc: &Path) {
    let home = std::fs::canonicalize(which(nvcc))
        .ok()
        .and_then(|path| Some(path.parent()?.parent()?.to_path_buf()))
        .unwrap_or_default();
    for folder in [
        "lib64",
        "lib",
        "targets/x86_64-linux/lib",
        "targets/sbsa-linux/lib",
    ] {
        println!(
            "cargo::rustc-link-search=native={}",
            home.join(folder).display()
        );
    }
    println!("cargo::rustc-link-lib=static=cudart_static");
    for library in ["dl", "rt", "pthread"] {
        println!("cargo::rustc-link-lib={library}");
    }
}

/// Where a command that is a bare name lies.
fn which(command: &Path) -> PathBuf {
    if command.components().count() > 1 {
        return command.to_path_buf();
    }
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(command))
        .find(|path| path.is_file())
        .unwrap_or_else(|| command.to_path_buf())
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
