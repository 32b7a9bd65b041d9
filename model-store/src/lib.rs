//! Models by name: `hf.co/OWNER/NAME:QUANT` is pulled from the Hugging Face Hub, kept in one folder,
//! found again by its name, and removed.
//!
//! What is decided is apart from what is done. [`name`], [`choose`], [`listing`], [`redirect`] and
//! [`attempts`] are functions of values; [`hub`] asks, `download` writes, [`store`] keeps, and [`pull()`]
//! joins them. All of it blocks: it is for a program without an async runtime, or for a thread.
//!
//! What a hub says is data. A name of it becomes the name of a file only if it is one component of a path,
//! and a file is moved into place only if its bytes have the SHA-256 of the hub's record.

#![forbid(unsafe_code)]

pub mod attempts;
pub mod choose;
mod download;
pub mod error;
mod hf_cache;
pub mod hub;
pub mod listing;
pub mod name;
pub mod progress;
pub mod pull;
pub mod record;
pub mod redirect;
pub mod settings;
pub mod store;

pub use error::Error;
pub use name::{ModelName, RepoName};
pub use pull::pull;
pub use settings::Settings;
pub use store::Store;
