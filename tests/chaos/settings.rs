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
    /// Services at once, each with its share of the faults.
    pub(crate) at_once: u64,
    /// No fault begins after this time, however many are left.
    pub(crate) limit: Option<Duration>,
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
    /// No fault begins after this time since the campaign's begin.
    pub(crate) until: Option<Duration>,
}

impl Settings {
    /// `ORCD_CHAOS_FAULTS`, `ORCD_CHAOS_SEED`, `ORCD_CHAOS_AT_ONCE` and `ORCD_CHAOS_SECONDS`; an empty one is none.
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
            at_once: number("ORCD_CHAOS_AT_ONCE").unwrap_or(1).max(1),
            limit: number("ORCD_CHAOS_SECONDS").map(Duration::from_secs),
        }
    }

    /// What to type for the same run.
    pub(crate) fn command(&self) -> String {
        let mut command = format!("make chaos FAULTS={} SEED={}", self.faults, self.seed);
        if self.at_once > 1 {
            command += &format!(" AT_ONCE={}", self.at_once);
        }
        if let Some(limit) = self.limit {
            command += &format!(" CHAOS_SECONDS={}", limit.as_secs());
        }
        command
    }

    /// What each of the services at once goes through, of `faults` faults: half of them with a standby, some with the
    /// default hang timeout, and some where KV memory is too small.
    fn legs_of(&self, faults: usize) -> Vec<Leg> {
        let short = Duration::from_millis(500);
        let default = Duration::from_millis(1500);
        let leg = |model, standby, kv_pages, hang, percent| Leg {
            model,
            standby,
            kv_pages,
            hang,
            faults: faults * percent / 100,
            until: None,
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
        legs[0].faults += faults - planned;
        let mut due = 0;
        for leg in &mut legs {
            due += leg.faults;
            let share = due as f64 / faults.max(1) as f64;
            leg.until = self.limit.map(|limit| limit.mul_f64(share));
        }
        legs
    }

    /// The legs of each of the services at once.
    pub(crate) fn legs(&self) -> Vec<Vec<Leg>> {
        let at_once = usize::try_from(self.at_once).unwrap();
        let more = |n: usize| usize::from(n < self.faults % at_once);
        let shares = (0..at_once).map(|n| self.faults / at_once + more(n));
        shares.map(|faults| self.legs_of(faults)).collect()
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
