//! Bounds-checked reader for GGUF model files.
