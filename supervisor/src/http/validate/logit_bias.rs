//! `logit_bias`: what is added to the logits of tokens, an object of numbers by their ids.

use orcd_shared::logit_bias::{LOGIT_BIAS, LogitBias, MAX_LOGIT_BIASES};
use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Type};

use super::super::json::Json;
use super::fields::Fields;
use super::schema::optional;

const FIELD: &str = "logit_bias";
const RULE: &str = "at most 1024 numbers from -100 to 100 by ids of the vocabulary";

/// The biases of a body; notes what is wrong with them.
pub(in crate::http) fn logit_bias(f: &mut Fields, vocab_size: u32) -> LogitBias {
    let members = match f.take(FIELD) {
        None => return LogitBias::default(),
        Some(Json::Object(members)) => members,
        Some(other) => {
            let wanted = "an object of numbers by token ids";
            return f
                .wrong_type(FIELD, RULE, &other, wanted)
                .unwrap_or_default();
        }
    };
    let mut biases = Vec::with_capacity(members.len().min(MAX_LOGIT_BIASES + 1));
    for (key, value) in members.into_iter().take(MAX_LOGIT_BIASES + 1) {
        match entry(&key, &value, vocab_size) {
            Ok(bias) => biases.push(bias),
            Err(message) => f.fault(FIELD, RULE, message),
        }
    }
    LogitBias::new(biases, vocab_size).unwrap_or_else(|fault| {
        f.fault(FIELD, RULE, fault.to_string());
        LogitBias::default()
    })
}

/// One token with its bias, or what is wrong with it. Keys that are no ids are not repeated: they may be texts.
fn entry(key: &str, value: &Json, vocab_size: u32) -> Result<(u32, f32), String> {
    let id = key.parse().ok().filter(|id: &u32| id.to_string() == key);
    let Some(id) = id.filter(|id| *id < vocab_size) else {
        let what = id.map_or_else(|| "a key".to_owned(), |id| format!("the key \"{id}\""));
        return Err(format!(
            "{FIELD} has {what} that is no token id; give whole numbers below {vocab_size}, such as \"0\""
        ));
    };
    let rule = LOGIT_BIAS.rule("bias");
    let Some(bias) = value.number() else {
        let kind = value.kind();
        return Err(format!(
            "{FIELD} of token {id} is {kind}; give a number, {rule}"
        ));
    };
    let taken = LOGIT_BIAS.engine_value(bias);
    let taken = taken.ok_or_else(|| format!("{FIELD} of token {id} is {bias}; give {rule}"))?;
    Ok((id, taken))
}

/// The field, for the OpenAPI document.
pub(in crate::http) fn schema(vocab_size: Option<u32>) -> Object {
    let bias = ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(LOGIT_BIAS.least))
        .maximum(Some(LOGIT_BIAS.most));
    let mut field = optional(Type::Object)
        .additional_properties(Some(AdditionalProperties::RefOr(bias.into())))
        .description(Some(
            "Added to the logits of tokens, after penalties: numbers by token ids. It applies to temperature 0 too.",
        ))
        .build();
    // Keywords of JSON Schema that utoipa's objects lack.
    field.extensions = Some(Extensions::from_iter([
        (
            "propertyNames",
            json!({"pattern": format!("^({})$", numbers_below(vocab_size))}),
        ),
        ("maxProperties", json!(MAX_LOGIT_BIASES)),
    ]));
    field
}

/// The whole numbers below `end`, as a regular expression.
fn numbers_below(end: Option<u32>) -> String {
    let Some(most) = end.and_then(|end| end.checked_sub(1)) else {
        return "0|[1-9][0-9]*".to_owned();
    };
    let most = most.to_string();
    let rest = |n: usize| {
        if n == 0 {
            String::new()
        } else {
            format!("[0-9]{{{n}}}")
        }
    };
    let mut forms = vec!["0".to_owned()];
    forms.extend((1..most.len()).map(|digits| format!("[1-9]{}", rest(digits - 1))));
    // As long as the largest one: with the same first digits, and then a smaller one.
    for (at, digit) in most.char_indices() {
        let least = if at == 0 { '1' } else { '0' };
        if digit > least {
            let below = char::from(digit as u8 - 1);
            let after = rest(most.len() - at - 1);
            forms.push(format!("{}[{least}-{below}]{after}", &most[..at]));
        }
    }
    if most != "0" {
        forms.push(most);
    }
    forms.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_has_the_bounds() {
        assert!(RULE.contains(&format!("most {MAX_LOGIT_BIASES} ")));
        assert!(RULE.contains(&format!(
            "from {} to {} ",
            LOGIT_BIAS.least, LOGIT_BIAS.most
        )));
    }

    #[test]
    fn the_pattern_of_ids_is_that_of_the_numbers_below_an_end() {
        for end in [1, 2, 9, 10, 11, 99, 100, 101, 1000, 1207] {
            let pattern = regex::Regex::new(&format!("^({})$", numbers_below(Some(end)))).unwrap();
            for n in 0..2000 {
                assert_eq!(pattern.is_match(&n.to_string()), n < end, "{n} below {end}");
            }
            for other in ["", "00", "01", "+1", "-1", "1.0", "a"] {
                assert!(!pattern.is_match(other), "{other} below {end}");
            }
        }
        let any = regex::Regex::new(&format!("^({})$", numbers_below(None))).unwrap();
        assert!(any.is_match("151935") && any.is_match("0") && !any.is_match("01"));
    }
}
