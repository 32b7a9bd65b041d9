//! Names of the service's own in templates.
//!
//! Functions that only [`translate`](super::super::source::translate) calls. The double bracket
//! lets a list of values without brackets, `{% set a, b = 1, 2 %}`, be one argument.

/// What all of them begin with.
pub(in crate::text::template) const OWN: &str = "__";
/// The variable that holds the characters that `tojson` never escapes.
pub(in crate::text::template) const UNESCAPED: &str = "__unescaped";
/// Opens the call for `%`.
pub(in crate::text::template) const PERCENT: &str = "__percent(";
/// Opens the call for the value of a variable.
pub(in crate::text::template) const BOUNDED: &str = "__bounded((";
/// Opens the call for the value of an attribute.
pub(in crate::text::template) const BOUNDED_ATTRIBUTE: &str = "__bounded_attribute((";

/// The name of the function that `call` opens a call of.
pub(super) fn function(call: &'static str) -> &'static str {
    call.trim_end_matches('(')
}
