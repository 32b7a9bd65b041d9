//! A rendering at the start, so that a template which can't work is known before a request meets
//! it.

use jiff::Zoned;

use super::{ChatTemplate, Message, Role, TemplateError};

impl ChatTemplate {
    /// Renders a user's turn, a system message in front of one, and several turns.
    ///
    /// # Errors
    /// [`TemplateError::Render`] or [`TemplateError::Budget`]. That a template refuses messages in
    /// its own words, as many do a system message, is no failure.
    pub fn try_out(&self, now: &Zoned) -> Result<(), TemplateError> {
        let turn = |role, content: &str| Message {
            role,
            content: content.to_owned(),
        };
        let system = || turn(Role::System, "Be brief.");
        let user = || turn(Role::User, "Hello");
        let assistant = || turn(Role::Assistant, "Hi.");
        let conversations = [
            vec![user()],
            vec![system(), user()],
            vec![user(), assistant(), user()],
            vec![system(), user(), assistant(), user(), assistant(), user()],
        ];
        for messages in &conversations {
            match self.render(messages, now) {
                Ok(_) | Err(TemplateError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
