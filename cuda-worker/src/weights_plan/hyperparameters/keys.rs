//! Reading keys, with what is said where one is absent or wrong.

use orcd_shared::gguf::Metadata;

use crate::weights_plan::{AbsentKey, PlanError};

/// Keys below an architecture's prefix.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) prefix: &'static str,
    /// Keys that the file lacks, and the values taken for them.
    pub(super) absent: Vec<AbsentKey>,
}

impl Keys<'_> {
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.contains(&self.name(key))
    }

    /// Notes that `value` is taken for a key that is absent.
    pub(super) fn take<T: ToString>(&mut self, key: &str, value: T) -> T {
        self.absent.push(AbsentKey {
            key: self.name(key),
            taken: value.to_string(),
        });
        value
    }

    pub(super) fn refused(&self, key: &str, found: impl ToString, reason: String) -> PlanError {
        PlanError::Key {
            key: self.name(key),
            found: found.to_string(),
            reason,
        }
    }

    /// A number of things, of which there is at least one.
    pub(super) fn count(&self, key: &str) -> Result<u32, PlanError> {
        let count = self.metadata.u32(&self.name(key))?;
        if count == 0 {
            return Err(self.refused(key, 0, "must be at least 1".into()));
        }
        Ok(count)
    }

    pub(super) fn positive(&self, key: &str) -> Result<f32, PlanError> {
        let value = self.metadata.f32(&self.name(key))?;
        if !(value.is_finite() && value > 0.0) {
            return Err(self.refused(key, value, "must be positive".into()));
        }
        Ok(value)
    }

    /// That what a key says, or what is taken for it, is not above a bound.
    pub(super) fn at_most(&self, key: &str, found: u32, most: u32) -> Result<(), PlanError> {
        if found > most {
            return Err(self.refused(key, found, format!("at most {most} is supported")));
        }
        Ok(())
    }

    /// A number of a key that may be missing, of any sign.
    pub(super) fn opt_f64(&self, key: &str) -> Result<Option<f64>, PlanError> {
        let value = self.metadata.opt_f32(&self.name(key))?;
        match value.filter(|v| !v.is_finite()) {
            Some(v) => Err(self.refused(key, v, "must be finite".into())),
            None => Ok(value.map(f64::from)),
        }
    }

    /// The same of a key that must be positive where it is there.
    pub(super) fn opt_positive(&self, key: &str) -> Result<Option<f32>, PlanError> {
        let there = self.has(key);
        there.then(|| self.positive(key)).transpose()
    }

    /// A positive number; `absent`, which is noted, without the key.
    pub(super) fn positive_or(&mut self, key: &str, absent: f32) -> Result<f32, PlanError> {
        let found = self.opt_positive(key)?;
        Ok(found.unwrap_or_else(|| self.take(key, absent)))
    }

    /// A key that may be missing, but not say something else.
    pub(super) fn must_equal(
        &mut self,
        key: &str,
        expected: u32,
        what: &str,
    ) -> Result<(), PlanError> {
        match self.metadata.opt_u32(&self.name(key))? {
            Some(found) if found != expected => {
                return Err(self.refused(key, found, format!("expected {expected}, {what}")));
            }
            Some(_) => {}
            None => _ = self.take(key, expected),
        }
        Ok(())
    }
}
