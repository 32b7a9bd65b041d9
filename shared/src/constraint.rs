//! What an output has to be. The supervisor passes it on as it is; only the worker, and the process that tries it
//! beforehand, make sense of it.

use serde::{Deserialize, Serialize};

/// A set of texts, one of which the output becomes if it isn't cut short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Constraint {
    /// JSON that a JSON Schema allows: the text of the schema, which is an object.
    JsonSchema(String),
    /// A regular expression that the whole output matches.
    Regex(String),
    /// A context-free grammar in llguidance's dialect of Lark.
    Lark(String),
}

/// Longest text of a [`Constraint`], bytes.
pub const MAX_CONSTRAINT_BYTES: usize = 256 << 10;

/// Deepest nesting of a JSON Schema: what reads and compiles one does so recursively.
pub const MAX_SCHEMA_DEPTH: usize = 64;

/// Members of a JSON schema whose values are schemas by names of their own, not keywords.
pub const SCHEMA_MAPS: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];

impl Constraint {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) => text,
        }
    }
}
