//! How much, and with which seed.

use std::time::Duration;

use orcd_tests::Model;

/// Faults of a run that asks for no number: what `make test` has time for.
const FAULTS: usize = 50;
/// The same run every time, as far as a seed decides it.
const SEED: u64 = 1;

/// Room for the longest job and little more.
const FEW_PAGES: u32 = 9;

/// What the environment asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) faults: usize,
    pub(crate) seed: u64,
    /// Somebody asked for a number: the whole table is wanted.
    pub(crate) is_record: bool,
}

/// A part of the campaign, on a service of its own.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) model: Model,
    pub(crate) standby: bool,
    /// So many pages of KV memory and no more, too few for the streams that there are.
    pub(crate) kv_pages: Option<u32>,
    /// After this long a worker counts as hanging.
    pub(crate) hang: Duration,
    pub(crate) faults: usize,
}

impl Settings {
    /// `ORCD_CHAOS_FAULTS` and `ORCD_CHAOS_SEED`; an empty one is none.
    pub(crate) fn from_env() -> Self {
        let number = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
            let number = value.parse::<u64>();
            Some(number.unwrap_or_else(|e| panic!("{name}={value}: {e}; give a whole number")))
        };
        let faults = number("ORCD_CHAOS_FAULTS");
        Self {
            faults: faults.map_or(FAULTS, |faults| usize::try_from(faults).unwrap()),
            seed: number("ORCD_CHAOS_SEED").unwrap_or(SEED),
            is_record: faults.is_some(),
        }
    }

    /// What to type for the same run.
    pub(crate) fn command(&self) -> String {
        format!("make chaos FAULTS={} SEED={}", self.faults, self.seed)
    }

    /// Half of the faults with a standby, some with the default hang timeout, and some where KV memory is too small.
    pub(crate) fn legs(&self) -> Vec<Leg> {
        let short = Duration::from_millis(500);
        let default = Duration::from_millis(1500);
        let leg = |model, standby, kv_pages, hang, percent| Leg {
            model,
            standby,
            kv_pages,
            hang,
            faults: self.faults * percent / 100,
        };
        let mut legs = vec![
            leg(Model::Brisk, false, None, short, 25),
            leg(Model::Brisk, true, None, short, 25),
            leg(Model::Brisk, false, Some(FEW_PAGES), short, 15),
            leg(Model::Brisk, true, Some(FEW_PAGES), short, 15),
            leg(Model::Haiku, false, None, default, 10),
            leg(Model::Haiku, true, None, short, 10),
        ];
        let planned: usize = legs.iter().map(|leg| leg.faults).sum();
        legs[0].faults += self.faults - planned;
        legs
    }
}

impl Leg {
    pub(crate) fn name(&self) -> String {
        let standby = if self.standby { "with" } else { "without" };
        let hang = self.hang.as_millis();
        let few = self
            .kv_pages
            .map_or(String::new(), |n| format!(", {n} KV pages"));
        format!(
            "{:?}, {standby} standby, hang after {hang} ms{few}",
            self.model
        )
    }
}
