//! Whatever comes out under a schema, a validator accepts, or it was cut short.

use cuda_worker::constraint::Compiler;
use orcd_shared::constraint::Constraint;
use orcd_shared::job::Finish;
use serde_json::{Value, json};

use crate::engine_support::Rng;
use crate::rig::{Rig, constrained};
use crate::sampler::{draw, vocabulary};
use crate::schemas;

/// Tokens of an output that dice make.
const MOST: usize = 400;
/// Of one that a model makes. Its tokens are shorter, and it likes white space: with 400 of them 16 of 500 are cut short.
const MOST_OF_MODEL: u32 = 1000;
/// Schemas that are tried, unless `ORCD_TEST_SCHEMAS` says otherwise.
const SCHEMAS: usize = 500;

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// JSON, whose numbers may have more digits than a double has room for.
fn parsed(output: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(output).map_err(|error| error.to_string())?;
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    if !error.contains("number out of range") {
        return Err(error);
    }
    // Of these only exponents are told from other digits, which does for schemas that don't bound the number.
    let long = text.match_indices(['e', 'E']).find_map(|(at, _)| {
        let digits = text[at + 1..].trim_start_matches(['+', '-']);
        let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_exponent = at > 0 && text.as_bytes()[at - 1].is_ascii_digit();
        (is_exponent && digits.len() - rest.len() > 2).then(|| format!("{}{rest}", &text[..at]))
    });
    parsed(long.ok_or(error)?.as_bytes())
}

#[track_caller]
fn assert_valid(schema: &Value, output: &[u8]) {
    let shown = String::from_utf8_lossy(output);
    let value = parsed(output).unwrap_or_else(|error| panic!("{error}: {shown}\nunder {schema}"));
    let options = jsonschema::options().should_validate_formats(true);
    let options = ["date", "time", "date-time"]
        .into_iter()
        .fold(options, |options, format| {
            let exact = jsonschema::options().should_validate_formats(true);
            let exact = exact.build(&json!({"format": format})).unwrap();
            // No regular expression knows leap years, or which minutes had 61 seconds.
            options.with_format(format, move |text: &str| {
                let text = text.replace("-02-29", "-02-28").replace(":60", ":59");
                exact.is_valid(&Value::from(text))
            })
        });
    let validator = options.build(schema).unwrap();
    if let Err(error) = validator.validate(&value) {
        panic!("{error}: {shown}\nunder {schema}");
    }
}

/// `ORCD_TEST_SAMPLES`: outputs of each schema.
#[test]
fn what_dice_say_under_a_schema_a_validator_accepts() {
    let samples = setting("ORCD_TEST_SAMPLES", 4);
    let compiler = Compiler::new(&vocabulary()).unwrap();
    let (mut whole, mut all, mut refused) = (0, 0, Vec::new());
    let written = schemas::written().len();
    let schemas = schemas::some(setting("ORCD_TEST_SCHEMAS", SCHEMAS));
    for (at, schema) in schemas.iter().enumerate() {
        let compiled = compiler.compile(&Constraint::JsonSchema(schema.to_string()));
        let fresh = match compiled {
            Ok(matcher) => matcher,
            Err(reason) => {
                // What was written here has to work; what was put together of it may be too much.
                assert!(at >= written, "{reason}: {schema}");
                refused.push(reason);
                continue;
            }
        };
        let mut done = 0;
        for sample in 0..samples {
            let mut rng = Rng((at * samples + sample) as u64);
            let output = draw(&mut fresh.clone(), &mut rng, MOST);
            if output.is_whole {
                assert_valid(schema, &output.bytes);
                done += 1;
            }
        }
        (whole, all) = (whole + done, all + samples);
    }
    println!(
        "{} schemas, {whole} of {all} outputs whole, refused: {refused:?}",
        schemas.len()
    );
    assert!(
        100 * (all - whole) <= all,
        "{whole} of {all} outputs are whole"
    );
    assert!(20 * refused.len() <= schemas.len(), "{refused:?}");
}

#[test]
fn what_a_model_says_under_a_schema_a_validator_accepts() {
    let schemas = schemas::some(setting("ORCD_TEST_SCHEMAS", SCHEMAS));
    let mut rig = Rig::new();
    let job = |(at, schema): (usize, &Value)| {
        let constraint = Constraint::JsonSchema(schema.to_string());
        let mut job = constrained(at as u64, constraint, MOST_OF_MODEL);
        job.sampling.top_k = [0, 8, 40][at % 3];
        job
    };
    rig.run(schemas.iter().enumerate().map(job));
    let mut whole = 0;
    for (at, schema) in schemas.iter().enumerate() {
        let output = rig.output(at as u64);
        match output.finish {
            Some(Finish::Eos) => {
                assert_valid(schema, &output.bytes);
                whole += 1;
            }
            Some(Finish::MaxTokens) => {}
            other => panic!("{other:?} under {schema}: {:?}", output.failure),
        }
    }
    println!("{whole} of {} outputs are whole", schemas.len());
    let cut = schemas.len() - whole;
    assert!(100 * cut <= schemas.len(), "{cut} outputs are cut short");
}
