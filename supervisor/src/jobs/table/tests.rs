//! Scripts, what each step of them gives back, and where the jobs are after it. After every step the
//! lists and the jobs have to agree.

use std::fmt::Write as _;

use orcd_shared::job::Finish;

use super::*;
use crate::jobs::{NoStream, ServiceState, StopReason};
use crate::samples::{CONTEXT, END, KV_PAGES, job};

/// Most jobs that wait; none may begin before the queue is looked at.
const QUEUE: usize = 3;
/// Until when a job may run, and for how long an ended one keeps its events.
const DEADLINE: Duration = Duration::from_secs(60);
const RETAINED: Duration = Duration::from_secs(10);

struct Rig {
    table: JobTable,
    start: Instant,
    now: Instant,
    /// Of the worker.
    kv_pages: u32,
    /// The first reader of each job.
    readers: HashMap<u64, EventReader>,
}

/// What a script gives back, step by step, and where the jobs are then.
fn run(script: &str) -> (String, String) {
    let mut rig = Rig::new();
    let said = script.split(", ").map(|step| {
        let said = rig.step(step);
        rig.check(step);
        said
    });
    let said = said.filter(|said| !said.is_empty()).collect::<Vec<_>>();
    (said.join(", "), rig.picture())
}

impl Rig {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            table: JobTable::default(),
            start,
            now: start,
            kv_pages: KV_PAGES,
            readers: HashMap::new(),
        }
    }

    fn step(&mut self, step: &str) -> String {
        let (verb, what) = step.split_once(' ').unwrap_or((step, ""));
        let key = JobKey(what.parse().unwrap_or_default());
        match verb {
            "submit" => self.submit(what, false),
            "keep" => self.submit(what, true),
            "start" => self.start(),
            "token" => self.token(key, 0, u32::from(b'x'), None),
            "eos" => self.token(key, 0, END, Some(Finish::Eos)),
            "again" => self.token(key, 1, u32::from(b'x'), None),
            "other" => self.token(key, 1, u32::from(b'y'), None),
            "lose" => self.lose(),
            "end" => {
                let until = self.now + RETAINED;
                self.table.end(key, Ending::Stop(StopReason::Eos), until);
                String::new()
            }
            "together" => self.table.replays_together().to_string(),
            "replays" => format!("{:?}", self.table.replay_work()),
            "pages" => {
                self.kv_pages = what.parse().unwrap();
                String::new()
            }
            "short" => self.table.is_short_of_pages(self.kv_pages).to_string(),
            "preempt" => {
                self.table.preempt(key);
                String::new()
            }
            "wait" => {
                self.now += Duration::from_secs(key.0);
                String::new()
            }
            "late" => match self.table.late(self.now) {
                late if late.is_empty() => "none late".into(),
                late => keys(late),
            },
            "leave" => format!("{}", self.table.reader_left(key)),
            "resume" => self.resume(what, None),
            "after" => {
                let (name, after) = what.split_once(' ').unwrap();
                self.resume(name, after.parse().ok())
            }
            "expire" => {
                self.table.expire(self.now, what.parse().unwrap());
                String::new()
            }
            "extend" => {
                self.table.extend_deadlines(Duration::from_secs(key.0));
                String::new()
            }
            "room" => match self.table.make_room(what.parse().unwrap()) {
                Some(key) => key.to_string(),
                None => "room".into(),
            },
            "read" => self.read(key),
            _ => panic!("{step}"),
        }
    }

    fn submit(&mut self, name: &str, continue_on_disconnect: bool) -> String {
        let prompt = match name {
            "long" => vec![1; CONTEXT as usize],
            _ => vec![1, 2, 3],
        };
        let job = NewJob {
            prompt,
            continue_on_disconnect,
            deadline: self.now + DEADLINE,
            ..job(name)
        };
        let context = AdmissionContext {
            state: ServiceState::Ready,
            queued: self.table.waiting(),
            queue_limit: QUEUE,
            queued_bytes: self.table.waiting_bytes(),
            queue_bytes: 1000,
            free_slots: 0,
            context: CONTEXT,
            positions: CONTEXT,
        };
        match self.table.submit(vec![job], &context, self.now) {
            Ok(taken) => {
                let (key, reader) = taken.into_iter().next().unwrap();
                self.readers.insert(key.0, reader);
                key.to_string()
            }
            Err(rejection) => rejection.code.name().into(),
        }
    }

    /// The job that starts; for how long it waited, if it starts for the first time; the tokens that
    /// it is given besides its prompt.
    fn start(&mut self) -> String {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let Some(Start { work, waited, .. }) = self.table.start_next(self.kv_pages, self.now, at)
        else {
            return "none".into();
        };
        let job = match work {
            Work::Submit(job) => job,
            Work::End(key, ending) => return format!("{key} over: {}", ending.outcome()),
        };
        match waited {
            Some(waited) => format!("{} after {} s", job.key, waited.as_secs()),
            None => format!("{} again with {}", job.key, job.emitted.len()),
        }
    }

    fn token(&mut self, key: JobKey, back: usize, id: u32, finish: Option<Finish>) -> String {
        let emitted = (self.table.in_flight(key)).map_or(0, |job| job.journal.tokens().len());
        let token = StepToken {
            key,
            index: (emitted - back) as u32,
            id,
            finish,
        };
        let Some(progress) = self.table.token(token, None, 1, self.now) else {
            return "ignored".into();
        };
        let mut said = match &progress.shown {
            Some(shown) if shown.is_first => format!("first after {} s", shown.after.as_secs()),
            Some(shown) => format!("next after {} s", shown.after.as_secs()),
            None => "hidden".into(),
        };
        if progress.shown.is_some_and(|shown| shown.is_replayed) {
            said += " and a replay";
        }
        if let Some(ending) = progress.ending {
            write!(said, ", over: {}", ending.outcome()).unwrap();
        }
        said
    }

    fn lose(&mut self) -> String {
        let lost = self.table.suspend(true).into_iter();
        let lost = lost.map(|(key, suspect)| format!("{key}{}", if suspect { "?" } else { "" }));
        format!("lost {}", lost.collect::<Vec<_>>().join(" "))
    }

    fn resume(&mut self, name: &str, after: Option<u64>) -> String {
        match self.table.resume(&name.into(), after, 2) {
            Ok((key, reader)) => format!("{key} from {}", reader.next_id()),
            Err(NoStream::Unknown) => "unknown".into(),
            Err(NoStream::Complete) => "complete".into(),
            Err(NoStream::Ahead { events }) => format!("ahead of {events}"),
            Err(NoStream::Crowded { readers }) => format!("{readers} readers"),
        }
    }

    fn read(&mut self, key: JobKey) -> String {
        let reader = self.readers.get_mut(&key.0).unwrap();
        let names = std::iter::from_fn(|| reader.try_recv()).map(|event| event.event.name());
        names.collect::<Vec<_>>().join(" ")
    }

    /// A job that is replayed shows its last token again, if it has one, and a new one.
    fn go_on(&mut self, key: u64) {
        let has_tokens = !self.table.jobs[&JobKey(key)].journal.tokens().is_empty();
        if has_tokens {
            self.step(&format!("again {key}"));
        }
        self.step(&format!("token {key}"));
    }

    /// Where the jobs are, and what may be kept of them.
    fn picture(&self) -> String {
        let table = &self.table;
        let lists = [
            ("waiting", keys(table.waiting.iter().copied())),
            ("running", keys(table.running.iter().copied())),
            ("lost", keys(table.awaiting_replay.iter().copied())),
            ("preempted", keys(table.preempted.iter().copied())),
            ("kept", keys(table.retained.iter().map(|(_, key)| *key))),
            ("unread", keys(table.unread.iter().copied())),
        ];
        let lists = lists.iter().filter(|(_, keys)| !keys.is_empty());
        let lists = lists.map(|(name, keys)| format!("{name} {keys}"));
        lists.collect::<Vec<_>>().join(", ")
    }

    /// Each job is in the list of its state and in no other; sums are those of the jobs.
    fn check(&self, step: &str) {
        let table = &self.table;
        let of = |state: JobState| {
            let jobs = table.jobs.iter().filter(move |(_, job)| job.state == state);
            jobs.map(|(key, _)| *key).collect::<BTreeSet<_>>()
        };
        let waiting = of(JobState::Waiting);
        assert_eq!(table.waiting, waiting, "waiting after {step}");
        assert_eq!(table.running, of(JobState::Running), "running after {step}");
        assert_eq!(
            table.awaiting_replay,
            of(JobState::AwaitingReplay),
            "lost after {step}"
        );
        assert_eq!(
            table.preempted,
            of(JobState::Preempted),
            "preempted after {step}"
        );
        let ended = table.retained.iter().map(|(_, key)| *key);
        let ended: BTreeSet<_> = ended.chain(table.unread.iter().copied()).collect();
        assert_eq!(ended, of(JobState::Ended), "ended after {step}");
        let bytes = waiting.iter().map(|key| table.jobs[key].waiting_bytes());
        assert_eq!(
            table.waiting_bytes(),
            bytes.sum::<usize>(),
            "bytes after {step}"
        );
        let begun = [&table.running, &table.awaiting_replay, &table.preempted];
        let begun: usize = begun.iter().map(|keys| keys.len()).sum();
        assert_eq!(table.begun(), begun, "begun after {step}");
        assert_eq!(
            table.is_idle(),
            begun + waiting.len() == 0,
            "idle after {step}"
        );
        let mut in_flight = table.keys_in_flight();
        in_flight.sort_unstable();
        let mut due: Vec<_> = table.deadlines.iter().map(|(_, key)| *key).collect();
        due.sort_unstable();
        assert_eq!(due, in_flight, "deadlines after {step}");
        for key in in_flight {
            let name = &table.jobs[&key].journal.job().job_id;
            assert_eq!(
                table.named_in_flight(&name.as_str().into()),
                Some(key),
                "{name} after {step}"
            );
        }
        assert!(
            table.replaying.is_subset(&table.running),
            "{:?} are replayed after {step}",
            table.replaying
        );
        assert!(self.start <= self.now);
    }
}

fn keys(keys: impl IntoIterator<Item = JobKey>) -> String {
    let keys = keys.into_iter().map(|key| key.to_string());
    keys.collect::<Vec<_>>().join(" ")
}

/// What must hold, the script, what it gives back, and where the jobs are then.
type Row = (&'static str, &'static str, &'static str, &'static str);

fn hold(rows: &[Row]) {
    for (what, script, said, picture) in rows {
        let found = run(script);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (*said, *picture),
            "{what}: {script}"
        );
    }
}

#[test]
fn admission() {
    hold(&[
        (
            "the queue is bounded, and a place in it is free when a job starts",
            "submit a, submit b, submit c, submit d, start, submit d",
            "#1, #2, #3, QUEUE_FULL, #1 after 0 s, #4",
            "waiting #2 #3 #4, running #1",
        ),
        (
            "a name is taken while its job is in flight, in any state",
            "submit a, submit a, start, submit a, lose, submit a, end 1, submit a",
            "#1, JOB_EXISTS, #1 after 0 s, JOB_EXISTS, lost #1?, JOB_EXISTS, #2",
            "waiting #2, unread #1",
        ),
        (
            "nothing is kept of a refused job",
            "submit long, submit long",
            "CONTEXT_LENGTH_EXCEEDED, CONTEXT_LENGTH_EXCEEDED",
            "",
        ),
    ]);
}

#[test]
fn start() {
    hold(&[
        (
            "jobs start in the order in which they came, and know how long they waited",
            "start, submit a, wait 2, submit b, wait 3, start, start, start",
            "none, #1, #2, #1 after 5 s, #2 after 3 s, none",
            "running #1 #2",
        ),
        (
            "what is reported of a token: the first since submission, others since the one before",
            "submit a, wait 1, start, wait 2, token 1, wait 4, token 1, eos 1",
            "#1, #1 after 1 s, first after 3 s, next after 4 s, hidden, over: end",
            "running #1",
        ),
        (
            "tokens of a job that waits, that ended or that never was are nobody's",
            "submit a, token 1, token 9, start, end 1, token 1, read 1",
            "#1, ignored, ignored, #1 after 0 s, ignored, started end",
            "unread #1",
        ),
    ]);
}

#[test]
fn preemption() {
    hold(&[
        (
            "a preempted job starts before the queue with its tokens, and that is no replay",
            "submit a, submit b, submit c, start, start, token 1, token 2, preempt 2, start, again 2, token 2",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, first after 0 s, first after 0 s, #2 again with 1, hidden, \
             next after 0 s",
            "waiting #3, running #1 #2",
        ),
        (
            "the oldest of them first, whatever the order in which they were preempted",
            "submit a, submit b, submit c, start, start, start, preempt 2, preempt 3, start, start, start",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, #3 after 0 s, #2 again with 0, #3 again with 0, none",
            "running #1 #2 #3",
        ),
        (
            "a token that differs after it ends the job, as after a replay",
            "submit a, submit b, start, start, token 2, preempt 2, start, other 2",
            "#1, #2, #1 after 0 s, #2 after 0 s, first after 0 s, #2 again with 1, hidden, over: REPLAY_DIVERGED",
            "running #1 #2",
        ),
        (
            "it is no suspect of a crash, and the lost ones start before it",
            "submit a, submit b, start, start, preempt 2, lose, start, start, token 1, start, lose",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1?, #1 again with 0, none, first after 0 s and a replay, \
             #2 again with 0, lost #1? #2?",
            "lost #1 #2",
        ),
        (
            "whose replay gives its pages back is waited for no longer",
            "submit a, submit b, start, start, lose, start, start, lose, start, start, preempt 1, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, #2 again with 0, lost #1? #2?, \
             #1 again with 0, none, #2 again with 0",
            "running #2, preempted #1",
        ),
        (
            "it is cancelled like any other, and one that ended is nobody's",
            "submit a, submit b, start, start, preempt 1, end 1, preempt 1, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, none",
            "running #2, unread #1",
        ),
        (
            "without pages none starts, though there is a slot; each that runs may need one more",
            "pages 3, submit a, submit b, short, start, short, start, pages 2, preempt 2, short, start, end 1, start",
            "#1, #2, false, #1 after 0 s, false, #2 after 0 s, true, none, #2 again with 0",
            "running #2, unread #1",
        ),
        (
            "whoever is next is not overtaken: a preempted job holds the queue up",
            "submit a, submit b, submit c, start, start, preempt 2, pages 2, start, short",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, none, true",
            "waiting #3, running #1, preempted #2",
        ),
        (
            "a lost job needs no more than it had",
            "submit a, submit b, start, start, lose, pages 2, start, token 1, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, first after 0 s and a replay, \
             #2 again with 0",
            "running #1 #2",
        ),
    ]);
}

#[test]
fn replay() {
    hold(&[
        (
            "lost jobs start together, and the queue when all of them go on",
            "submit a, submit b, submit c, start, start, token 1, lose, together, start, start, start, again 1, \
             token 1, start, token 2, start",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, first after 0 s, lost #1? #2?, true, #1 again with 1, \
             #2 again with 0, none, hidden, next after 0 s and a replay, none, first after 0 s and a replay, \
             #3 after 0 s",
            "running #1 #2 #3",
        ),
        (
            "after a loss without progress they start one after the other: the next when one goes on",
            "submit a, submit b, submit c, start, start, token 1, lose, start, start, lose, together, start, start, \
             again 1, start, token 1, start, start",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, first after 0 s, lost #1? #2?, #1 again with 1, \
             #2 again with 0, lost #1? #2?, false, #1 again with 1, none, hidden, none, \
             next after 0 s and a replay, #2 again with 0, none",
            "waiting #3, running #1 #2",
        ),
        (
            "so they do where only some had gone on, and those are no suspects",
            "submit a, submit b, start, start, lose, start, start, token 1, lose, together, start, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, #2 again with 0, \
             first after 0 s and a replay, lost #1 #2?, false, #1 again with 1, none",
            "running #1, lost #2",
        ),
        (
            "and together again after a loss of jobs that all had gone on",
            "submit a, submit b, start, start, lose, start, start, lose, start, token 1, start, token 2, lose, \
             together, start, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, #2 again with 0, lost #1? #2?, \
             #1 again with 0, first after 0 s and a replay, #2 again with 0, first after 0 s and a replay, \
             lost #1? #2?, true, #1 again with 1, #2 again with 1",
            "running #1 #2",
        ),
        (
            "a worker that is lost without jobs says nothing of them",
            "together, lose, together, submit a, start, lose, start, lose, lose, together",
            "true, lost , true, #1, #1 after 0 s, lost #1?, #1 again with 0, lost #1?, lost , true",
            "lost #1",
        ),
        (
            "work for the next worker is what was emitted",
            "submit a, submit b, submit c, start, start, token 1, token 1, token 2, lose, replays, start, replays",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, first after 0 s, next after 0 s, first after 0 s, \
             lost #1? #2?, (2, 3), #1 again with 2, (1, 1)",
            "waiting #3, running #1, lost #2",
        ),
        (
            "in a loss during a replay only the job that was replayed is suspect, and it comes last",
            "submit a, submit b, start, start, lose, start, lose, start, lose, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, lost #1?, #2 again with 0, \
             lost #2?, #1 again with 0",
            "running #1, lost #2",
        ),
        (
            "a job that went on beside a replay is no suspect",
            "submit a, submit b, start, start, lose, start, token 1, start, lose",
            "#1, #2, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, first after 0 s and a replay, \
             #2 again with 0, lost #1 #2?",
            "lost #1 #2",
        ),
        (
            "a replay that ends, whatever the reason, lets the next job start",
            "submit a, submit b, start, start, token 1, lose, start, start, lose, start, other 1, start, end 1, start",
            "#1, #2, #1 after 0 s, #2 after 0 s, first after 0 s, lost #1? #2?, #1 again with 1, #2 again with 0, \
             lost #1? #2?, #1 again with 1, hidden, over: REPLAY_DIVERGED, none, #2 again with 0",
            "running #2, unread #1",
        ),
        (
            "tokens that come after the loss are nobody's",
            "submit a, start, lose, token 1, lose",
            "#1, #1 after 0 s, lost #1?, ignored, lost ",
            "lost #1",
        ),
    ]);
}

/// Whichever of them it is, and however far the others get before each loss.
#[test]
fn a_job_that_every_worker_dies_of_is_suspect_three_times_and_the_others_twice_at_most() {
    for poison in 1..=3 {
        for quick in 0..8 {
            let losses = losses_by(poison, |key| quick & (1 << (key - 1)) != 0);
            assert_eq!(losses, 3, "{poison}, {quick:b}");
        }
    }
}

/// Of three jobs one ends each worker, before any other goes on but those that are quick or alone. How
/// many workers that takes until it is suspect for the third time.
fn losses_by(poison: u64, is_quick: impl Fn(u64) -> bool) -> u32 {
    let mut rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.step(&format!("submit {name}"));
    }
    let mut losses = 0;
    while rig.table.jobs[&JobKey(poison)].crashes < 3 {
        while rig.step("start") != "none" {
            let replaying: Vec<_> = rig.table.replaying.iter().map(|key| key.0).collect();
            for key in replaying {
                if key != poison && (rig.table.one_by_one || is_quick(key)) {
                    rig.go_on(key);
                }
            }
        }
        rig.step("lose");
        rig.check("lose");
        losses += 1;
        let blamed = rig.table.jobs.iter().filter(|(key, _)| key.0 != poison);
        let blamed = blamed.map(|(_, job)| job.crashes).max();
        assert!(blamed <= Some(2), "{poison} after {losses}");
    }
    losses
}

#[test]
fn end() {
    hold(&[
        (
            "a job ends in every state, once, and its reader has its last event",
            "submit a, submit b, submit c, start, start, lose, start, end 1, end 2, end 3, end 3, end 9, read 1, read 3",
            "#1, #2, #3, #1 after 0 s, #2 after 0 s, lost #1? #2?, #1 again with 0, started end, end",
            "unread #1 #2 #3",
        ),
        (
            "an ended job is gone when its reader has left, one in flight goes on for nobody",
            "submit a, start, leave 1, end 1, leave 1, submit b, leave 2, end 2, leave 2",
            "#1, #1 after 0 s, true, false, #2, true, false",
            "",
        ),
        (
            "deadlines are of jobs in flight, and of their own submission",
            "submit a, wait 20, submit b, start, late, wait 40, late, end 1, late, wait 20, late",
            "#1, #2, #1 after 20 s, none late, #1, none late, #2",
            "waiting #2, unread #1",
        ),
    ]);
}

#[test]
fn events_that_are_kept() {
    hold(&[
        (
            "readers come and go while a job with kept events runs, and after its end",
            "keep a, start, token 1, leave 1, resume a, after a 0, resume a, after a 2, leave 1, after a 7, end 1, \
             after a 1, leave 1, leave 1, after a 2",
            "#1, #1 after 0 s, first after 0 s, false, #1 from 0, #1 from 1, 2 readers, ahead of 2, false, \
             ahead of 2, #1 from 2, false, false, complete",
            "kept #1",
        ),
        (
            "of other jobs nothing is kept, and of unknown ones there is nothing",
            "submit a, start, resume a, end 1, resume a, resume b",
            "#1, #1 after 0 s, unknown, unknown, unknown",
            "unread #1",
        ),
        (
            "ended jobs are kept for their time, and the oldest go when there are too many",
            "keep a, keep b, keep c, end 1, wait 5, end 2, end 3, expire 9, wait 5, expire 9, expire 1, resume b, resume c",
            "#1, #2, #3, unknown, #3 from 0",
            "kept #3, unread #1 #2",
        ),
        (
            "what several read is there until the last of them has left",
            "keep a, resume a, end 1, expire 0, leave 1",
            "#1, #1 from 0, false",
            "unread #1",
        ),
        (
            "time in which nobody was heard counts for no reader",
            "keep a, leave 1, end 1, extend 5, wait 12, expire 9, resume a, leave 1, wait 3, expire 9, resume a",
            "#1, false, #1 from 0, false, unknown",
            "",
        ),
        (
            "a later job of the name takes its place",
            "keep a, leave 1, end 1, submit a, resume a",
            "#1, false, #2, unknown",
            "waiting #2",
        ),
        (
            "room is made of what is kept, then of what is unread, then by the job that holds most",
            "keep a, submit b, keep c, keep d, start, start, start, start",
            "#1, #2, #3, QUEUE_FULL, #1 after 0 s, #2 after 0 s, #3 after 0 s, none",
            "running #1 #2 #3",
        ),
        (
            "events in flight cost their job, which is the one that holds most",
            "keep a, submit b, start, start, token 2, token 2, room 1, end 2, room 100000, room 1",
            "#1, #2, #1 after 0 s, #2 after 0 s, first after 0 s, next after 0 s, #2, room, #1",
            "running #1",
        ),
        (
            "ended jobs go first, and those that are read last",
            "keep a, keep b, submit c, end 1, end 2, leave 2, end 3, room 1, resume a, resume b, read 3",
            "#1, #2, #3, false, room, unknown, unknown, end",
            "",
        ),
    ]);
}
