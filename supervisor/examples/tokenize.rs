//! Texts to ids by the tokenizer of a model file, for `tools/ci/tokenizer-check`.
//!
//!     tokenize MODEL.gguf [PRE-TOKENIZER] < texts > ids
//!
//! A text is a line with a JSON string; its ids are a line with a JSON array. Special tokens are parsed, and nothing is
//! put in front. The file needs no tensors.

use std::error::Error;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::Path;

use orcd_shared::gguf::GgufFile;
use orcd_supervisor::text::{Specials, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("tokenize MODEL.gguf [PRE-TOKENIZER]")?;
    let file = GgufFile::open(Path::new(&path))?;
    let name = args.next().map(|name| name.parse()).transpose()?;
    let tokenizer = Tokenizer::with_pre_tokenizer(&file.header().metadata, name)?;
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text, Specials::Parse)?;
        serde_json::to_writer(&mut out, &ids)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
