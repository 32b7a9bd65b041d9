//! The sampling of requests that say nothing of it.

use clap::Args;
use orcd_shared::sampling::{Kind, PARAMETERS, SamplingParams};

/// What was set of it. What was not is what the model's file recommends, or else what the engine has off, with a
/// temperature of 1.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct SamplingFlags {
    /// Temperature of requests that don't say it [default: the model file's recommendation, or 1]
    #[arg(long, value_name = "T", env = "ORCD_DEFAULT_TEMPERATURE", value_parser = number("temperature"))]
    default_temperature: Option<f32>,

    /// `top_p` of requests that don't say it [default: the model file's recommendation, or 1]
    #[arg(long, value_name = "P", env = "ORCD_DEFAULT_TOP_P", value_parser = number("top_p"))]
    default_top_p: Option<f32>,

    /// `top_k` of requests that don't say it [default: the model file's recommendation, or 0]
    #[arg(long, value_name = "K", env = "ORCD_DEFAULT_TOP_K",
          value_parser = super::numbers::whole::<u32>(0..=1_048_576))]
    default_top_k: Option<u32>,

    /// `min_p` of requests that don't say it [default: the model file's recommendation, or 0]
    #[arg(long, value_name = "P", env = "ORCD_DEFAULT_MIN_P", value_parser = number("min_p"))]
    default_min_p: Option<f32>,

    /// Repetition penalty of requests that don't say it [default: the model file's recommendation, or 1]
    #[arg(long, value_name = "R", env = "ORCD_DEFAULT_REPETITION_PENALTY",
          value_parser = number("repetition_penalty"))]
    default_repetition_penalty: Option<f32>,
}

impl SamplingFlags {
    /// The defaults, of which `recommended` are those that were not set.
    #[must_use]
    pub fn over(&self, recommended: SamplingParams) -> SamplingParams {
        let or = |set: Option<f32>, other| set.unwrap_or(other);
        SamplingParams {
            temperature: or(self.default_temperature, recommended.temperature),
            top_p: or(self.default_top_p, recommended.top_p),
            top_k: self.default_top_k.unwrap_or(recommended.top_k),
            min_p: or(self.default_min_p, recommended.min_p),
            repetition_penalty: or(
                self.default_repetition_penalty,
                recommended.repetition_penalty,
            ),
            ..recommended
        }
    }
}

/// A number in the bounds that requests have for the parameter `name`.
fn number(
    name: &'static str,
) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bounds = PARAMETERS.iter().find_map(|p| match &p.kind {
            Kind::Number(bounds, _) if p.name == name => Some(bounds),
            _ => None,
        });
        let bounds = bounds.ok_or_else(|| format!("{name} is no number"))?;
        let value = text
            .parse()
            .ok()
            .and_then(|value| bounds.engine_value(value));
        value.ok_or_else(|| format!("give a number, {}", bounds.rule(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_goes_over_what_is_recommended() {
        let flags = SamplingFlags {
            default_temperature: Some(0.5),
            default_top_k: Some(0),
            ..SamplingFlags::default()
        };
        let recommended = SamplingParams {
            temperature: 0.7,
            top_k: 20,
            top_p: 0.8,
            ..SamplingParams::GREEDY
        };
        let found = flags.over(recommended);
        assert_eq!((found.temperature, found.top_k, found.top_p), (0.5, 0, 0.8));
    }

    #[test]
    fn numbers_have_the_bounds_of_requests() {
        assert_eq!(number("temperature")("0.25"), Ok(0.25));
        for bad in ["-1", "2.5", "NaN", "x", ""] {
            let message = number("temperature")(bad).unwrap_err();
            assert_eq!(message, "give a number, 0 <= temperature <= 2", "{bad}");
        }
        for p in &PARAMETERS {
            if let Kind::Number(bounds, _) = &p.kind {
                assert!(
                    number(p.name)(&bounds.most.to_string()).is_ok(),
                    "{}",
                    p.name
                );
            }
        }
    }
}
