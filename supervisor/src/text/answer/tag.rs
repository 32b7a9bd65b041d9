//! The tags that formats are made of, and how they are found in tokens and text.

/// A tag of any format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Think,
    ThinkEnd,
    BracketThink,
    BracketThinkEnd,
    ToolCall,
    ToolCallEnd,
    Python,
    ToolCalls,
    Args,
    CallId,
    Channel,
    Message,
    Start,
    End,
    Call,
    Return,
    Constrain,
}

impl Tag {
    pub(super) const HARMONY: [Self; 7] = [
        Self::Channel,
        Self::Message,
        Self::Start,
        Self::End,
        Self::Call,
        Self::Return,
        Self::Constrain,
    ];

    const ALL: [Self; 17] = [
        Self::Think,
        Self::ThinkEnd,
        Self::BracketThink,
        Self::BracketThinkEnd,
        Self::ToolCall,
        Self::ToolCallEnd,
        Self::Python,
        Self::ToolCalls,
        Self::Args,
        Self::CallId,
        Self::Channel,
        Self::Message,
        Self::Start,
        Self::End,
        Self::Call,
        Self::Return,
        Self::Constrain,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Think => "<think>",
            Self::ThinkEnd => "</think>",
            Self::BracketThink => "[THINK]",
            Self::BracketThinkEnd => "[/THINK]",
            Self::ToolCall => "<tool_call>",
            Self::ToolCallEnd => "</tool_call>",
            Self::Python => "<|python_tag|>",
            Self::ToolCalls => "[TOOL_CALLS]",
            Self::Args => "[ARGS]",
            Self::CallId => "[CALL_ID]",
            Self::Channel => "<|channel|>",
            Self::Message => "<|message|>",
            Self::Start => "<|start|>",
            Self::End => "<|end|>",
            Self::Call => "<|call|>",
            Self::Return => "<|return|>",
            Self::Constrain => "<|constrain|>",
        }
    }

    /// Whether the tag counts when it is spelled out although the vocabulary has a token for it.
    ///
    /// Fine-tuned models spell these four out. The others are control tokens wherever they are
    /// tokens: a model that spells one out quotes it.
    fn may_be_spelled(self) -> bool {
        matches!(
            self,
            Self::Think | Self::ThinkEnd | Self::ToolCall | Self::ToolCallEnd
        )
    }
}

/// The ids that a model's vocabulary has for the tags of the formats.
///
/// A token of a known id counts as its name, once: whether its text is empty, as a control token's
/// is, or is the name.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlTokens {
    /// In the order of [`Tag::ALL`].
    ids: [Option<u32>; Tag::ALL.len()],
}

impl ControlTokens {
    /// Asks `id_of` for the token of each name.
    ///
    /// Tokens that have a text need not be named, since the text tells the tag. They must not be if
    /// their text may come later than their id, as it does after a [`StopMatcher`]: the tag would
    /// be counted twice.
    ///
    /// [`StopMatcher`]: crate::text::StopMatcher
    pub fn new(id_of: impl Fn(&str) -> Option<u32>) -> Self {
        Self {
            ids: Tag::ALL.map(|tag| id_of(tag.name())),
        }
    }

    /// The name of the control token `id`.
    pub(in crate::text) fn name(&self, id: u32) -> Option<&'static str> {
        let mut known = Tag::ALL.iter().zip(self.ids);
        Some(known.find(|&(_, own)| own == Some(id))?.0.name())
    }

    fn id(&self, wanted: Tag) -> Option<u32> {
        let mut known = Tag::ALL.iter().zip(self.ids);
        known.find(|&(&tag, _)| tag == wanted)?.1
    }
}

/// A part of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'t> {
    /// Never empty.
    Text(&'t str),
    Tag(Tag),
}

/// Finds tags. It does not know where a tag has a meaning: whoever takes the events turns the others
/// back into text.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    by_id: Vec<(u32, Tag)>,
    by_text: Vec<Tag>,
    /// The end of the text so far, as long as it is the beginning of a tag.
    held: String,
}

impl Scanner {
    pub(super) fn new(active: &[Tag], controls: &ControlTokens) -> Self {
        let active = active.iter().copied();
        let by_id = active
            .clone()
            .filter_map(|tag| Some((controls.id(tag)?, tag)));
        let by_text = active.filter(|&tag| tag.may_be_spelled() || controls.id(tag).is_none());
        Self {
            by_id: by_id.collect(),
            by_text: by_text.collect(),
            held: String::new(),
        }
    }

    pub(super) fn push(&mut self, id: u32, text: &str, take: &mut impl FnMut(Event<'_>)) {
        let tag = self.by_id.iter().find(|&&(known, _)| known == id);
        let Some(&(_, tag)) = tag else {
            return self.scan(text, take);
        };
        // Text that was held back before the parser may come with the token.
        self.scan(text.strip_suffix(tag.name()).unwrap_or(text), take);
        self.flush(take);
        take(Event::Tag(tag));
    }

    /// What is held back is text, since no more of a tag comes.
    pub(super) fn flush(&mut self, take: &mut impl FnMut(Event<'_>)) {
        if !self.held.is_empty() {
            take(Event::Text(&self.held));
            self.held.clear();
        }
    }

    fn scan(&mut self, mut text: &str, take: &mut impl FnMut(Event<'_>)) {
        while !text.is_empty() {
            text = if self.held.is_empty() {
                self.seek(text, take)
            } else {
                self.extend(text, take)
            };
        }
    }

    /// Passes `text` on up to where a tag may begin, and returns what follows that character.
    fn seek<'t>(&mut self, text: &'t str, take: &mut impl FnMut(Event<'_>)) -> &'t str {
        let begins = |c| self.by_text.iter().any(|tag| tag.name().starts_with(c));
        let (before, rest) = text.split_at(text.find(begins).unwrap_or(text.len()));
        if !before.is_empty() {
            take(Event::Text(before));
        }
        let mut rest = rest.chars();
        self.held.extend(rest.next());
        rest.as_str()
    }

    /// Adds the first character of `text` to the beginning of a tag, and returns what follows it.
    ///
    /// If that is no tag's beginning, all of it is text except the new character: a tag's first
    /// character is nowhere else in a tag, so none begins in between.
    fn extend<'t>(&mut self, text: &'t str, take: &mut impl FnMut(Event<'_>)) -> &'t str {
        let mut rest = text.chars();
        self.held.extend(rest.next());
        let mut candidates = self.by_text.iter();
        match candidates.find(|tag| tag.name().starts_with(&self.held)) {
            Some(tag) if tag.name() == self.held => {
                self.held.clear();
                take(Event::Tag(*tag));
                rest.as_str()
            }
            Some(_) => rest.as_str(),
            None => {
                self.held.pop();
                self.flush(take);
                text
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(controls: ControlTokens, pushes: &[(u32, &str)]) -> String {
        let mut scanner = Scanner::new(&Tag::ALL, &controls);
        let mut events = String::new();
        let mut take = |event: Event<'_>| match event {
            Event::Text(text) => events.push_str(text),
            Event::Tag(tag) => events.push_str(&format!("({tag:?})")),
        };
        for &(id, text) in pushes {
            scanner.push(id, text, &mut take);
        }
        scanner.flush(&mut take);
        events
    }

    /// The vocabulary in which every tag is a token, from 0 on in the order of the list.
    fn all_known() -> ControlTokens {
        ControlTokens::new(|name| {
            let at = Tag::ALL.iter().position(|tag| tag.name() == name);
            at.map(|at| at as u32)
        })
    }

    #[test]
    fn no_tag_begins_inside_another() {
        for tag in Tag::ALL {
            let first = &tag.name()[..1];
            for other in Tag::ALL {
                assert!(!other.name()[1..].contains(first), "{tag:?} in {other:?}");
                assert!(tag == other || !tag.name().starts_with(other.name()));
            }
        }
    }

    #[test]
    fn spelled_tags_are_found_wherever_they_are_cut() {
        let pushes = [
            (99, "a<<"),
            (99, "think>b</think"),
            (99, "c[AR"),
            (99, "GS]<"),
        ];
        assert_eq!(
            scan(ControlTokens::default(), &pushes),
            "a<(Think)b</thinkc(Args)<"
        );
    }

    #[test]
    fn a_known_id_counts_once_with_text_and_without() {
        for text in ["", "<think>"] {
            assert_eq!(scan(all_known(), &[(0, text)]), "(Think)");
        }
        assert_eq!(
            scan(all_known(), &[(99, "x<thin"), (0, "")]),
            "x<thin(Think)"
        );
    }

    #[test]
    fn text_held_back_before_comes_before_the_tag() {
        assert_eq!(scan(all_known(), &[(0, "x<think>")]), "x(Think)");
        assert_eq!(scan(all_known(), &[(0, "x")]), "x(Think)");
    }

    #[test]
    fn a_control_token_that_is_spelled_out_is_a_quotation() {
        let pushes = [(99, "<|channel|>[ARGS]<tool_call>")];
        assert_eq!(scan(all_known(), &pushes), "<|channel|>[ARGS](ToolCall)");
    }
}
