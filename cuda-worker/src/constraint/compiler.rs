//! From a constraint to a matcher.

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{JsonCompileOptions, ParserFactory};
use orcd_shared::constraint::Constraint;
use serde_json::Value;

use super::{Matcher, Vocabulary};

/// White space of JSON between two of its parts: a space, or a line break and an indentation. Without a bound a model may
/// go on with it for ever.
const WHITE_SPACE: &str = " |\n {0,32}";

/// Bounds of work and of memory. All are counts, so that a replay reaches them where the first run did.
const LIMITS: ParserLimits = ParserLimits {
    // Of an ambiguous grammar the work of a token grows with their square: some 10 ms here.
    max_items_in_row: 500,
    // About 20 ms.
    initial_lexer_fuel: 1_000_000,
    // About 15 ms, a mask's most. Masks of JSON take a thousandth.
    step_lexer_fuel: 200_000,
    step_max_items: 20_000,
    // 1 to 2 KB each, of each job.
    max_lexer_states: 25_000,
    max_grammar_size: 500_000,
    // It would make compiling depend on the vocabulary, which the trial doesn't have.
    precompute_large_lexemes: false,
    // An error with the state in it would show the output.
    verbose_errors: false,
};

/// What a grammar may not do: a control token that an output has can't be told from one that the service put there.
const NAMES_TOKENS: &str = "it names tokens; give texts, which may be made of any tokens";

/// Longest error that is passed on, characters.
const MAX_ERROR_CHARS: usize = 300;

/// Makes matchers over one vocabulary.
pub struct Compiler {
    factory: ParserFactory,
    vocab_size: usize,
}

impl Compiler {
    /// For `vocabulary`. Takes up to half a second for a large one.
    ///
    /// # Errors
    /// A bug: the parts that JSON is cut into don't compile.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, String> {
        let slices = SlicedBiasComputer::general_slices();
        Self::with_slices(vocabulary, &slices)
    }

    /// Without what makes the masks of a large vocabulary fast.
    ///
    /// # Errors
    /// None is known.
    pub fn simple(vocabulary: &Vocabulary) -> Result<Self, String> {
        Self::with_slices(vocabulary, &[])
    }

    fn with_slices(vocabulary: &Vocabulary, slices: &[String]) -> Result<Self, String> {
        let env = vocabulary.token_env();
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), slices);
        let mut factory = factory.map_err(|error| shortened(&error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Self {
            factory,
            vocab_size: vocabulary.size(),
        })
    }

    /// The matcher of an output without tokens, with its first mask.
    ///
    /// # Errors
    /// The constraint is none, is too large, or allows no output.
    pub fn compile(&self, constraint: &Constraint) -> Result<Matcher, String> {
        let parser = self.factory.create_parser(grammar(constraint)?);
        let parser = parser.map_err(|error| match error.to_string() {
            error if error.contains("special token") => NAMES_TOKENS.to_owned(),
            error => shortened(&error),
        })?;
        // By its number one can be named that there is.
        if parser
            .parser
            .grammar()
            .lexer_spec()
            .special_token_rx
            .is_some()
        {
            return Err(NAMES_TOKENS.to_owned());
        }
        let mut matcher = Matcher::new(llguidance::Matcher::new(Ok(parser)), self.vocab_size);
        matcher.mask()?;
        Ok(matcher)
    }
}

fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar, String> {
    Ok(match constraint {
        Constraint::JsonSchema(text) => TopLevelGrammar::from_json_schema(schema(text)?),
        Constraint::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
        Constraint::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
    })
}

/// The schema with our options in it, whatever it says itself.
fn schema(text: &str) -> Result<Value, String> {
    let mut schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !schema.is_object() {
        return Err("the schema is no object".to_owned());
    }
    if has_unheeded_bounds(&schema) {
        return Err(UNHEEDED_BOUNDS.to_owned());
    }
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// Of bounds of a number that llguidance (1.9.1) does not keep.
const UNHEEDED_BOUNDS: &str = "an exclusive bound of a number that is whole, with the other bound less than 1 away, \
                               can't be heeded; give a bound with a fraction";

/// Whether a number in `schema` has bounds of that kind.
fn has_unheeded_bounds(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(has_unheeded_bounds),
        Value::Object(members) => {
            let bound = |name| members.get(name).and_then(Value::as_f64);
            let upper = [bound("maximum"), bound("exclusiveMaximum")];
            let lower = [bound("minimum"), bound("exclusiveMinimum")];
            let is_near =
                |bound: f64, other: f64| bound.fract() == 0.0 && (other - bound).abs() < 1.0;
            let is_unheeded = |bound: Option<f64>, others: [Option<f64>; 2]| {
                bound.is_some_and(|b| others.iter().flatten().any(|&other| is_near(b, other)))
            };
            let rises = lower[1].is_some_and(|b| b >= 0.0) && is_unheeded(lower[1], upper);
            let falls = upper[1].is_some_and(|b| b <= 0.0) && is_unheeded(upper[1], lower);
            let is_whole = members.get("type").is_some_and(|kind| kind == "integer");
            (!is_whole && (rises || falls)) || members.values().any(has_unheeded_bounds)
        }
        _ => false,
    }
}

/// An error in one line, without what llguidance adds for its own developers.
pub(super) fn shortened(error: &str) -> String {
    let error = error.split("\n<").next().unwrap_or_default();
    // It is a panic of llguidance's, which has caught it: something that it didn't foresee.
    let error = error.strip_prefix("panic: ").unwrap_or(error);
    let words = error.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => format!("{} …", &words[..end]),
        None => words,
    }
}
