//! Frames: a little-endian u32 length, then one bincode message of that many bytes.
//!
//! Lengths are checked against [`MAX_FRAME_BYTES`] before anything is allocated, and bincode is
//! given the same limit, so that a hostile peer can't make either side reserve memory.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message, bytes. The longest sound one is a job of a full context (four bytes for each id, prompt and replayed
/// output): two million tokens fit, or a million beside the longest constraint.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Bytes of the length prefix.
pub const HEADER_BYTES: usize = 4;

/// What can be wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is over the maximum.
    #[error(
        "frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}: the peer is not a worker-orcd of this version"
    )]
    TooLong {
        /// The length it announced.
        length: u64,
    },
    /// The message can't be encoded (it is over the limit).
    #[error("message can't be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The bytes are no message.
    #[error("frame holds no message: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The message ended before the frame.
    #[error("frame holds {extra} bytes after its message")]
    TrailingBytes {
        /// Bytes left over.
        extra: usize,
    },
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME_BYTES>()
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] if the message is over the limit; `out` is then as before.
pub fn encode<M: Serialize>(message: &M, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    if let Err(e) = bincode::serde::encode_into_std_write(message, out, config()) {
        out.truncate(start);
        return Err(e.into());
    }
    let length = out.len() - start - HEADER_BYTES;
    match u32::try_from(length) {
        Ok(n) if length <= MAX_FRAME_BYTES => {
            out[start..start + HEADER_BYTES].copy_from_slice(&n.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(FrameError::TooLong {
                length: length as u64,
            })
        }
    }
}

/// Takes one whole frame off the front of `buffer`: the message and the bytes it took, or `None`
/// when more bytes are needed.
///
/// # Errors
/// The stream can't be read any further: the connection has to be closed.
pub fn decode<M: DeserializeOwned>(buffer: &[u8]) -> Result<Option<(M, usize)>, FrameError> {
    let Some(length) = announced_length(buffer)? else {
        return Ok(None);
    };
    let Some(body) = buffer.get(HEADER_BYTES..HEADER_BYTES + length) else {
        return Ok(None);
    };
    // Strings of bytes are looked at where they lie, so that their length is known to be there.
    let (message, read) = bincode::serde::borrow_decode_from_slice(body, config())?;
    if read != length {
        return Err(FrameError::TrailingBytes {
            extra: length - read,
        });
    }
    Ok(Some((message, HEADER_BYTES + length)))
}

/// Length of the message at the front of `buffer`, once its prefix is there.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is allocated for it.
pub fn announced_length(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong {
            length: length as u64,
        });
    }
    Ok(Some(length))
}
