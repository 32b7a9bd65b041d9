#!/bin/sh
# Makes models/haiku-nano-* from nothing: text, vocabulary, training, GGUF, Q4_K_M, references, checks.
# Needs Python 3.11 or later, a C++ compiler for llama-cpp-python, and a CUDA GPU for the training
# (about eight minutes on an H100). STEPS=20 ROWS=1 DOCUMENTS=5000 tries the whole way on a CPU.
set -eu
cd "$(dirname "$0")"

if [ ! -d .venv ]; then
    python3 -m venv .venv
    .venv/bin/pip install -q -r requirements.txt
fi
python=.venv/bin/python
compile=$($python -c 'import torch; print("--compile" if torch.cuda.is_available() else "")')

$python generate_text.py --documents "${DOCUMENTS:-800000}"
$python train_tokenizer.py
$python train.py --steps "${STEPS:-6000}" --rows "${ROWS:-64}" $compile
$python export_gguf.py
$python quantise.py
$python write_reference.py
$python evaluate.py
