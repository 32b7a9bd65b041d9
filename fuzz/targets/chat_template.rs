//! A hostile chat template with hostile messages: rendering ends, in a text of bounded length or in
//! an error, and neither panics nor overflows the stack.

use jiff::Zoned;
use orcd_supervisor::text::{ChatTemplate, Message, Role};

/// Longest text that the budget of one rendering pays for.
const MAX_OUTPUT_BYTES: usize = 160 << 20;

/// Takes what is in front of the first byte 1 for a template, what is between others for messages.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\u{1}');
    let source = parts.next().unwrap_or_default();
    let roles = [Role::User, Role::Assistant, Role::User, Role::System];
    let messages: Vec<Message> = parts
        .zip(roles.into_iter().cycle())
        .map(|(content, role)| Message {
            role,
            content: content.to_owned(),
        })
        .collect();
    let template = match ChatTemplate::compile(source, "<s>", "</s>") {
        Ok(template) => template,
        Err(error) => {
            // For people, from the template's own text.
            let _ = error.to_string();
            return;
        }
    };
    match template.render(&messages, &Zoned::now()) {
        Ok(text) => assert!(text.len() <= MAX_OUTPUT_BYTES),
        Err(error) => {
            let _ = error.to_string();
        }
    }
}
