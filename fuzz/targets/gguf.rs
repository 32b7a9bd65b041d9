//! The GGUF header parser on arbitrary bytes: it must answer, and what it accepts must be
//! consistent.

use orcd_shared::gguf::parse;

/// Reads `bytes` as the header of a model file.
pub fn run(bytes: &[u8]) {
    let header = match parse(bytes) {
        Ok(header) => header,
        Err(e) => {
            // Messages are made from the file's own strings and numbers.
            let _ = e.to_string();
            return;
        }
    };
    for tensor in &header.tensors {
        let range = header.file_range(tensor);
        assert!(range.end <= bytes.len() as u64);
        assert_eq!(range.end - range.start, tensor.nbytes);
        assert_eq!(range.start % header.alignment, 0);
        assert_eq!(tensor.rows() * tensor.row_bytes(), tensor.nbytes);
        let blocks = tensor.n_elements() / tensor.ty.block_len();
        assert_eq!(blocks * tensor.ty.block_bytes(), tensor.nbytes);
    }
    let metadata = &header.metadata;
    for (key, value) in metadata.iter() {
        let _ = value.describe();
        let _ = metadata.u32(key).map_err(|e| e.to_string());
        let _ = metadata.i32s(key);
        let _ = metadata.str(key);
    }
}
