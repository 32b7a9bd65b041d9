//! KV memory as one pool: whose pages are whose, what is kept in those that nobody holds, and what a worker finds of a
//! pool that it did not make.
//!
//! What is in a full page is a function of the tokens up to there. So a page has a name made of them ([`names`]),
//! sequences that begin alike share pages ([`pages`]), and a worker that takes a dead one's pool over finds there, by
//! the names in the ledger ([`ledger`]), what its jobs had computed.

pub mod chains;
pub mod ledger;
pub mod made;
pub mod names;
mod notes;
pub mod pages;
pub mod sequences;
