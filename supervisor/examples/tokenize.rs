//! Texts to ids by the tokenizer of a model file, for `tools/ci/tokenizer-check`.
//!
//!     tokenize MODEL.gguf parse|as-text < texts > ids
//!
//! A text is a line with a JSON string; its ids are a line with a JSON array. Control tokens are parsed or
//! text, and nothing is put in front. The file needs no tensors.

use std::error::Error;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::Path;

use orcd_shared::gguf::GgufFile;
use orcd_supervisor::text::{Specials, Tokenizer};

const USAGE: &str = "usage: tokenize MODEL.gguf parse|as-text";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or(USAGE)?;
    let file = GgufFile::open(Path::new(&path))?;
    let specials = match args.next().as_deref() {
        Some("parse") => Specials::Parse,
        Some("as-text") => Specials::AsText,
        _ => return Err(USAGE.into()),
    };
    let tokenizer = Tokenizer::from_metadata(&file.header().metadata)?;
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text, specials)?;
        serde_json::to_writer(&mut out, &ids)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
