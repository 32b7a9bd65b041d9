//! The members of one JSON object, taken one by one; what is wrong with them is collected.

use std::collections::HashMap;

use orcd_shared::sampling::Bounds;

use super::super::error::{Detail, MAX_DETAILS};
use super::super::json::Json;
use crate::text::shortened;

/// An object being taken apart.
#[derive(Debug)]
pub(in crate::http) struct Fields {
    /// In front of every name: `messages[3].`, or nothing.
    path: String,
    members: HashMap<String, Json>,
    faults: Vec<Detail>,
}

impl Fields {
    /// The members of a request body.
    pub(in crate::http) fn of(body: Json) -> Result<Self, Vec<Detail>> {
        Self::at(String::new(), body).map_err(|fault| vec![fault])
    }

    /// The members of an object that stands at `path`.
    pub(in crate::http) fn at(path: String, value: Json) -> Result<Self, Detail> {
        let Json::Object(list) = value else {
            let (field, what) = if path.is_empty() {
                ("", "the body")
            } else {
                (path.as_str(), path.as_str())
            };
            return Err(Detail {
                field: field.to_owned(),
                constraint: "object".into(),
                message: format!("{what} is {}; give an object", value.kind()),
            });
        };
        let path = if path.is_empty() {
            path
        } else {
            format!("{path}.")
        };
        let members = HashMap::with_capacity(list.len());
        let mut fields = Self {
            path,
            members,
            faults: Vec::new(),
        };
        for (name, value) in list {
            let shown = shortened(&name);
            if fields.members.insert(name, value).is_some() && !fields.is_full() {
                fields.fault(&shown, "once", format!("{shown} is given more than once"));
            }
        }
        Ok(fields)
    }

    /// Whether there are more faults than an answer names: further ones are not worth their memory.
    fn is_full(&self) -> bool {
        self.faults.len() > MAX_DETAILS
    }

    /// Notes a fault of the field `name`.
    pub(in crate::http) fn fault(&mut self, name: &str, constraint: &str, message: String) {
        if self.is_full() {
            return;
        }
        self.faults.push(Detail {
            field: format!("{}{name}", self.path),
            constraint: constraint.to_owned(),
            message,
        });
    }

    /// Adds faults found elsewhere.
    pub(in crate::http) fn add_faults(&mut self, faults: Vec<Detail>) {
        self.faults.extend(faults);
        self.faults.truncate(MAX_DETAILS + 1);
    }

    /// A field's value, which stays.
    pub(in crate::http) fn peek(&self, name: &str) -> Option<&Json> {
        self.members.get(name)
    }

    /// Takes the value of a field that may be left out; `null` is how some clients leave it out.
    pub(in crate::http) fn take(&mut self, name: &str) -> Option<Json> {
        self.members.remove(name).filter(|v| *v != Json::Null)
    }

    /// Takes the value of a field that may not be left out; notes its absence.
    pub(in crate::http) fn required(&mut self, name: &str, rule: &str) -> Option<Json> {
        let is_there = self.members.contains_key(name);
        let value = self.take(name);
        if value.is_none() {
            let what = if is_there { "null" } else { "missing" };
            let message = format!("{}{name} is {what}; give {rule}", self.path);
            self.fault(name, rule, message);
        }
        value
    }

    /// A string; notes another type.
    pub(in crate::http) fn string(
        &mut self,
        name: &str,
        rule: &str,
        value: Json,
    ) -> Option<String> {
        match value {
            Json::String(text) => Some(text),
            other => self.wrong_type(name, rule, &other, "a string"),
        }
    }

    /// A string of 1 to `most` bytes; notes others.
    pub(in crate::http) fn text(&mut self, name: &str, most: usize, value: Json) -> Option<String> {
        let rule = format!("1-{most} bytes");
        let text = self.string(name, &rule, value)?;
        if (1..=most).contains(&text.len()) {
            return Some(text);
        }
        let message = format!(
            "{}{name} has {} bytes; give 1 to {most}",
            self.path,
            text.len()
        );
        self.fault(name, &rule, message);
        None
    }

    /// A number in `bounds` as the engine gets it, `default` if it is left out; notes others.
    pub(in crate::http) fn number(&mut self, name: &str, bounds: &Bounds, default: f32) -> f32 {
        let Some(given) = self.take(name) else {
            return default;
        };
        let Some(value) = given.number() else {
            self.wrong_type::<()>(name, &bounds.rule(name), &given, "a number");
            return default;
        };
        if let Some(value) = bounds.engine_value(value) {
            return value;
        }
        let rule = bounds.rule(name);
        let message = format!("{}{name} is {value}; give {rule}", self.path);
        self.fault(name, &rule, message);
        default
    }

    /// An optional whole number in `min..=max`; notes others.
    pub(in crate::http) fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let rule = format!("{min} <= {name} <= {max}");
        let value = self.take(name)?;
        let shown = match &value {
            Json::Unsigned(n) => n.to_string(),
            Json::Negative(n) => n.to_string(),
            Json::Float(x) => x.to_string(),
            other => return self.wrong_type(name, &rule, other, "a whole number"),
        };
        let value = value.whole();
        let inside = value.filter(|n| (min..=max).contains(n));
        if inside.is_none() {
            let path = &self.path;
            let message = format!("{path}{name} is {shown}; give a whole number, {rule}");
            self.fault(name, &rule, message);
        }
        inside
    }

    /// An optional whole number in `min..=max`; notes others.
    pub(in crate::http) fn count(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let value = self.integer(name, min.into(), max.into())?;
        // At most `max`.
        u32::try_from(value).ok()
    }

    /// Whether a field is `true`; notes what is no bool.
    pub(in crate::http) fn flag(&mut self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same of a field that counts as `default` where it is left out.
    pub(in crate::http) fn flag_or(&mut self, name: &str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(Json::Bool(value)) => value,
            Some(other) => self
                .wrong_type(name, "bool", &other, "true or false")
                .unwrap_or(default),
        }
    }

    /// Ends with all faults, or with the names of the fields that nobody took.
    pub(in crate::http) fn finish_leniently(self) -> Result<Vec<String>, Vec<Detail>> {
        if self.faults.is_empty() {
            Ok(self.members.into_keys().collect())
        } else {
            Err(self.faults)
        }
    }

    /// Ends with all faults, among them the fields that nobody took; `known` are those there are.
    pub(in crate::http) fn finish(mut self, known: &[&str]) -> Result<(), Vec<Detail>> {
        let mut unknown: Vec<_> = self.members.drain().map(|(name, _)| name).collect();
        unknown.sort_unstable();
        for name in unknown {
            if self.is_full() {
                break;
            }
            let name = shortened(&name);
            let message = format!(
                "unknown field `{}{name}`; expected one of {}",
                self.path,
                known.join(", ")
            );
            self.fault(&name, "unknown", message);
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults)
        }
    }

    pub(in crate::http) fn wrong_type<T>(
        &mut self,
        name: &str,
        rule: &str,
        found: &Json,
        wanted: &str,
    ) -> Option<T> {
        let kind = found.kind();
        let message = format!("{}{name} is {kind}; give {wanted}", self.path);
        self.fault(name, rule, message);
        None
    }
}
