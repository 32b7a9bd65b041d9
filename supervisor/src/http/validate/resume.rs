//! The field `resume`: output that the client has of another service, and what says of which.

use super::super::json::Json;
use super::execute::ids;
use super::{Fields, JOB_ID_RULE, is_job_id};
use crate::text::TemplateTime;

/// Longest fingerprint or digest that is read.
const MAX_NAME_BYTES: usize = 128;

/// What the client says of an output that is to go on here.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// Of the first service's answer, where answers have an id.
    pub id: Option<String>,
    /// Ids of its tokens so far.
    pub ids: Vec<u32>,
    /// As the first service said.
    pub fingerprint: String,
    /// As the first service said.
    pub request_digest: String,
    /// As the first service said.
    pub template_time: TemplateTime,
}

/// What may be unknown in `resume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Strictness {
    /// Nothing.
    Strict,
    /// Fields, which are ignored.
    Lenient,
}

/// Takes the field; notes what is wrong, a request without its seed among that.
pub(in crate::http) fn resume(
    f: &mut Fields,
    vocab_size: u32,
    strictness: Strictness,
) -> Option<Resume> {
    let value = f.take("resume")?;
    if f.peek("seed").is_none_or(|seed| *seed == Json::Null) {
        let message = "seed is missing; with resume give the seed that the first stream began with";
        f.fault("seed", "given with resume", message.into());
    }
    let mut fields = match Fields::at("resume".into(), value) {
        Ok(fields) => fields,
        Err(fault) => {
            f.add_faults(vec![fault]);
            return None;
        }
    };
    let id = match strictness {
        Strictness::Strict => None,
        Strictness::Lenient => answer_id(&mut fields),
    };
    let resume = members(&mut fields, id, vocab_size);
    let faults = match strictness {
        Strictness::Strict => fields
            .finish(&["ids", "fingerprint", "request_digest", "template_time"])
            .err(),
        Strictness::Lenient => fields.finish_leniently().err(),
    };
    f.add_faults(faults.unwrap_or_default());
    resume
}

fn members(f: &mut Fields, id: Option<String>, vocab_size: u32) -> Option<Resume> {
    const IDS: &str = "an array of token ids";
    let found = f.required("ids", IDS);
    let found = found.and_then(|value| ids(f, "ids", value, vocab_size));
    let fingerprint = name(f, "fingerprint");
    let request_digest = name(f, "request_digest");
    let template_time = time(f);
    Some(Resume {
        id,
        ids: found?,
        fingerprint: fingerprint?,
        request_digest: request_digest?,
        template_time: template_time?,
    })
}

fn answer_id(f: &mut Fields) -> Option<String> {
    let value = f.take("id")?;
    let id = f.text("id", super::MAX_JOB_ID_BYTES, value)?;
    if is_job_id(&id) {
        return Some(id);
    }
    let message = format!("resume.id has other characters than allowed; give {JOB_ID_RULE}");
    f.fault("id", JOB_ID_RULE, message);
    None
}

fn name(f: &mut Fields, name: &str) -> Option<String> {
    let value = f.required(name, "what the first stream began with")?;
    f.text(name, MAX_NAME_BYTES, value)
}

fn time(f: &mut Fields) -> Option<TemplateTime> {
    const RULE: &str =
        "as the first stream began with: RFC 3339, whole seconds, an offset such as +00:00";
    let value = f.required("template_time", RULE)?;
    let text = f.text("template_time", MAX_NAME_BYTES, value)?;
    let time = TemplateTime::parse(&text);
    if time.is_none() {
        let message = format!("resume.template_time is no such time; give it {RULE}");
        f.fault("template_time", RULE, message);
    }
    time
}
