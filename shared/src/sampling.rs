//! How a token is drawn. The order of the steps and every bit of them: `docs/ARITHMETIC.md`.

use serde::{Deserialize, Serialize};

/// Smallest repetition penalty of the engine: a logit divided by it stays far from infinity. A
/// request's smaller one counts as this.
pub const MIN_REPETITION_PENALTY: f32 = 1e-6;

/// Smallest `top_p` of the engine, the smallest normal number. A request's smaller one counts as
/// this: it, too, leaves only the most likely token.
pub const MIN_TOP_P: f32 = f32::MIN_POSITIVE;

/// Bounds of one number of [`SamplingParams`]: what a request may give, and what the engine gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lower bound of a request's value.
    pub least: f64,
    /// Whether a request may give `least` itself.
    pub includes_least: bool,
    /// Largest value of a request.
    pub most: f64,
    /// Value of a request that leaves it out.
    pub default: f32,
    /// Smallest value of the engine: a request's smaller one counts as this.
    pub engine_least: f32,
}

/// One of [`PARAMETERS`].
#[derive(Debug)]
pub struct Parameter {
    /// Its name in requests, and as a field of [`SamplingParams`].
    pub name: &'static str,
    /// What it does, for the OpenAPI document.
    pub about: &'static str,
    /// What requests may give.
    pub kind: Kind,
}

/// What requests may give for a parameter, and where that goes.
#[derive(Debug)]
pub enum Kind {
    /// A number.
    Number(Bounds, Field<f32>),
    /// A whole number up to the size of the vocabulary. 0 is off, and the default.
    Count(Field<u32>),
}

/// A field of [`SamplingParams`].
pub type Field<T> = fn(&mut SamplingParams) -> &mut T;

/// All parameters but choice and seed: what requests are checked by, what the OpenAPI document says of
/// them, what the engine checks, and what tests go through.
pub static PARAMETERS: [Parameter; 7] = [
    Parameter {
        name: "temperature",
        about: "0 takes the most likely token.",
        kind: Kind::Number(Bounds::from_zero(2.0, 1.0), |p| &mut p.temperature),
    },
    Parameter {
        name: "top_p",
        about: "Draw from the most likely tokens of this probability; 1 is off.",
        kind: Kind::Number(Bounds::above_zero(1.0, MIN_TOP_P), |p| &mut p.top_p),
    },
    Parameter {
        name: "top_k",
        about: "Draw from so many of the most likely tokens; 0 is off. The upper bound is the size of the \
                vocabulary.",
        kind: Kind::Count(|p| &mut p.top_k),
    },
    Parameter {
        name: "min_p",
        about: "Least probability, as a share of the most likely token's; 0 is off.",
        kind: Kind::Number(Bounds::from_zero(1.0, 0.0), |p| &mut p.min_p),
    },
    Parameter {
        name: "repetition_penalty",
        about: "Over all tokens of prompt and output; 1 is off.",
        kind: Kind::Number(Bounds::above_zero(2.0, MIN_REPETITION_PENALTY), |p| {
            &mut p.repetition_penalty
        }),
    },
    Parameter {
        name: "frequency_penalty",
        about: "Taken from a token's logit for each time that it is in the output; 0 is off.",
        kind: Kind::Number(Bounds::around_zero(2.0), |p| &mut p.frequency_penalty),
    },
    Parameter {
        name: "presence_penalty",
        about: "Taken from the logits of tokens that are in the output; 0 is off.",
        kind: Kind::Number(Bounds::around_zero(2.0), |p| &mut p.presence_penalty),
    },
];

/// Those of [`PARAMETERS`] that are numbers: name, bounds, field.
pub fn numbers() -> impl Iterator<Item = (&'static str, &'static Bounds, Field<f32>)> {
    PARAMETERS.iter().filter_map(|p| match &p.kind {
        Kind::Number(bounds, field) => Some((p.name, bounds, *field)),
        Kind::Count(_) => None,
    })
}

impl Bounds {
    const fn from_zero(most: f64, default: f32) -> Self {
        Self {
            least: 0.0,
            includes_least: true,
            most,
            default,
            engine_least: 0.0,
        }
    }

    /// Of what is off at 0, which is the default.
    pub(crate) const fn around_zero(most: f64) -> Self {
        Self {
            least: -most,
            includes_least: true,
            most,
            default: 0.0,
            engine_least: -most as f32,
        }
    }

    /// Of what is off at 1, which is the default.
    const fn above_zero(most: f64, engine_least: f32) -> Self {
        Self {
            least: 0.0,
            includes_least: false,
            most,
            default: 1.0,
            engine_least,
        }
    }

    /// What the engine gets for `value` of a request; `None` if that is out of bounds, as NaN is. A
    /// value of the engine stays what it is.
    #[must_use]
    pub fn engine_value(&self, value: f64) -> Option<f32> {
        let is_inside = (self.least..=self.most).contains(&value)
            && (self.includes_least || value > self.least);
        // The engine computes in f32. Adding 0 turns -0 into 0.
        is_inside.then(|| (value as f32 + 0.0).max(self.engine_least))
    }

    /// The bounds of a request as an error states them: `0 < top_p <= 1`.
    #[must_use]
    pub fn rule(&self, name: &str) -> String {
        let below = if self.includes_least { "<=" } else { "<" };
        format!("{} {below} {name} <= {}", self.least, self.most)
    }
}

/// Parameters of one job's draws. A pure value: with the same value, model and tokens the same
/// token is drawn on any device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off. Applies to the set of all tokens of prompt and output.
    pub repetition_penalty: f32,
    /// 0 is off. Applies to tokens of the output, by how often they are in it. Crash files of older builds
    /// lack it, as those below.
    #[serde(default)]
    pub frequency_penalty: f32,
    /// 0 is off. Applies to the set of the output's tokens.
    #[serde(default)]
    pub presence_penalty: f32,
    /// Which of several outputs of one request: a word of the generator's counter, so that they differ.
    #[serde(default)]
    pub choice: u32,
    /// Key of the counter-based generator.
    pub seed: u64,
}

impl SamplingParams {
    /// The most likely token each time; the seed plays no part.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        choice: 0,
        seed: 0,
    };

    /// What a request gets that says nothing of it, where nobody set anything else: the defaults of
    /// [`PARAMETERS`].
    #[must_use]
    pub fn defaults() -> Self {
        let mut params = Self::GREEDY;
        for (_, bounds, field) in numbers() {
            *field(&mut params) = bounds.default;
        }
        params
    }

    /// The first number that the engine does not take.
    #[must_use]
    pub fn first_fault(&self) -> Option<SamplingFault> {
        let mut params = *self;
        numbers().find_map(|(name, bounds, field)| {
            let value = *field(&mut params);
            let is_taken = bounds.engine_value(value.into()) == Some(value);
            (!is_taken).then(|| SamplingFault {
                name,
                value,
                rule: bounds.rule(name),
            })
        })
    }
}

/// A number of [`SamplingParams`] that the engine does not take.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} is {value}; give {rule}")]
pub struct SamplingFault {
    /// The parameter.
    pub name: &'static str,
    /// What it is.
    pub value: f32,
    /// What it must be.
    pub rule: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_what_its_bounds_contain() {
        let (zero, above) = (Bounds::from_zero(2.0, 1.0), Bounds::above_zero(1.0, 0.1));
        assert_eq!(zero.rule("t"), "0 <= t <= 2");
        assert_eq!(above.rule("p"), "0 < p <= 1");
        assert_eq!(zero.engine_value(0.0), Some(0.0));
        assert_eq!(above.engine_value(0.0), None);
        for (_, bounds, _) in numbers() {
            let value = |value| bounds.engine_value(value);
            assert_eq!(value(bounds.least.next_up()), Some(bounds.engine_least));
            assert_eq!(value(bounds.default.into()), Some(bounds.default));
            for beyond in [bounds.least.next_down(), bounds.most.next_up(), f64::NAN] {
                assert_eq!(value(beyond), None, "{bounds:?} {beyond}");
            }
            // What the engine gets is no fault to it.
            for taken in [bounds.least.next_up(), bounds.most].map(value) {
                assert_eq!(value(taken.unwrap().into()), taken);
            }
        }
    }

    #[test]
    fn all_fields_but_choice_and_seed_are_parameters() {
        let fields = serde_json::to_value(SamplingParams::GREEDY).unwrap();
        let fields = fields.as_object().unwrap().keys().map(String::as_str);
        let mut names: Vec<_> = PARAMETERS.iter().map(|p| p.name).collect();
        names.extend(["choice", "seed"]);
        assert_eq!(fields.collect::<Vec<_>>(), names);
        let mut params = SamplingParams::GREEDY;
        for (name, bounds, field) in numbers() {
            *field(&mut params) = bounds.most as f32;
            let found = serde_json::to_value(params).unwrap()[name].as_f64();
            assert_eq!(found, Some(bounds.most), "{name}");
        }
    }

    #[test]
    fn a_number_that_the_engine_does_not_take_is_named_with_its_rule() {
        assert_eq!(SamplingParams::GREEDY.first_fault(), None);
        let params = SamplingParams {
            min_p: f32::NAN,
            repetition_penalty: MIN_REPETITION_PENALTY.next_down(),
            ..SamplingParams::GREEDY
        };
        assert_eq!(
            params.first_fault().unwrap().to_string(),
            "min_p is NaN; give 0 <= min_p <= 1"
        );
        let params = SamplingParams {
            min_p: 0.0,
            ..params
        };
        assert_eq!(params.first_fault().unwrap().name, "repetition_penalty");
    }
}
