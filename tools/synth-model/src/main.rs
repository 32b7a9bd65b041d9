//! Writes a GGUF file of a named shape with sound random weights.
fn main() {}
