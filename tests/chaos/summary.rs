//! The campaign in figures.

use std::fmt::Write as _;
use std::time::Duration;

use orcd_tests::stats::Samples;

use crate::faults::KINDS;
use crate::leg::{Report, Stream};

/// All legs together.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) legs: Vec<Report>,
}

impl Summary {
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.legs.iter().flat_map(|leg| &leg.streams)
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        let named = |leg: &Report| {
            let name = leg.name.clone();
            let failures = leg.failures.clone();
            failures.into_iter().map(move |f| format!("{name}: {f}"))
        };
        self.legs.iter().flat_map(named).collect()
    }

    pub(crate) fn health(&self) -> Samples {
        let all = self.legs.iter().flat_map(|leg| leg.health.iter().copied());
        Samples::new(all.collect())
    }

    pub(crate) fn faults(&self) -> usize {
        self.legs.iter().map(|leg| leg.injected.len()).sum()
    }

    fn sum(&self, of: impl Fn(&Stream) -> usize) -> usize {
        self.streams().map(of).sum()
    }

    /// Counts in one line each.
    pub(crate) fn counts(&self) -> Vec<(&'static str, String)> {
        let lost = self.sum(|stream| stream.verdict.lost);
        let duplicated = self.sum(|stream| stream.verdict.duplicated);
        let changed = self.sum(|stream| stream.verdict.changed);
        let against = self.sum(|stream| usize::from(stream.received.strictly.is_err()));
        let given_up = self.sum(|stream| usize::from(stream.was_given_up()));
        let replays = self
            .streams()
            .map(|stream| stream.received.replays)
            .sum::<u64>();
        let resumed = self.sum(|stream| usize::from(stream.received.away.is_some()));
        let refusals = self.sum(|stream| stream.received.refusals);
        let unasked = self.legs.iter().map(|leg| leg.unasked).sum::<u64>();
        let missed = self.legs.iter().map(|leg| leg.missed).sum::<usize>();
        vec![
            ("faults", self.faults().to_string()),
            ("streams", self.sum(|_| 1).to_string()),
            (
                "tokens compared",
                self.sum(|s| s.received.tokens.len()).to_string(),
            ),
            ("bytes compared", self.sum(|s| s.bytes).to_string()),
            (
                "tokens lost / duplicated / changed",
                format!("{lost} / {duplicated} / {changed}"),
            ),
            ("streams against the contract", against.to_string()),
            ("jobs given up as suspects", given_up.to_string()),
            ("replays", replays.to_string()),
            ("streams resumed by their client", resumed.to_string()),
            ("requests told to come later (503)", refusals.to_string()),
            ("workers lost that no fault asked for", unasked.to_string()),
            ("faults that found nobody", missed.to_string()),
            ("`/health`", self.health().to_string()),
        ]
    }

    /// Pauses by kind of fault: how many faults, and the streams that met them.
    fn pauses(&self, kind: &str) -> (usize, Vec<Duration>) {
        let mut faults = 0;
        let mut pauses = Vec::new();
        for leg in &self.legs {
            for fault in leg.injected.iter().filter(|fault| fault.kind == kind) {
                faults += 1;
                pauses.extend(leg.streams.iter().filter_map(|s| s.pause(fault)));
            }
        }
        (faults, pauses)
    }

    /// For docs/RELIABILITY.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("| what | figure |\n|---|---|\n");
        for (what, figure) in self.counts() {
            let _ = writeln!(text, "| {what} | {figure} |");
        }
        text.push_str(
            "\n| fault | times | streams it met | pause p50 | p99 |\n|---|---|---|---|---|\n",
        );
        for kind in KINDS {
            let (faults, pauses) = self.pauses(kind);
            let met = pauses.len();
            let figure = |percent| match pauses.is_empty() {
                true => "–".to_owned(),
                false => {
                    let pause = Samples::new(pauses.clone()).percentile(percent);
                    format!("{} ms", pause.as_millis())
                }
            };
            let (half, most) = (figure(50), figure(99));
            let _ = writeln!(text, "| {kind} | {faults} | {met} | {half} | {most} |");
        }
        text.push_str("\n| service | faults | | descriptors | threads | RSS MiB | workers | zombies | device bytes |\n|---|---|---|---|---|---|---|---|---|\n");
        for leg in &self.legs {
            for (when, held) in [("before", leg.before), ("after", leg.after)] {
                let _ = writeln!(
                    text,
                    "| {} | {} | {when} | {} | {} | {} | {} | {} | {} |",
                    leg.name,
                    leg.injected.len(),
                    held.descriptors,
                    held.threads,
                    held.rss_kib / 1024,
                    held.children,
                    held.zombies,
                    held.device_bytes,
                );
            }
        }
        text
    }
}
