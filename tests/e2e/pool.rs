//! KV memory that outlives its worker: what is kept of it between jobs and over a worker's death, and that no byte of any
//! stream ever follows from it.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::kv_pool::PoolFiles;
use orcd_tests::proc::wait_until;
use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, paths, report};
use serde_json::{Value, json};

/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

/// So many tokens of a prompt; those of another number differ from the first on.
fn ids(number: u64, tokens: u64) -> Vec<u64> {
    (0..tokens)
        .map(|i| 100 + (i * i * 7 + i * 31 + number * 53) % 400)
        .collect()
}

/// A job that fills pages and would show the smallest difference.
fn job(name: &str, prompt: &[u64]) -> Job {
    Job::of_ids(name, prompt)
        .set("max_tokens", 40)
        .set("temperature", 1.1)
        .set("seed", 3)
        .set("top_k", 64)
}

fn starter(model: Model) -> Starter {
    Starter::new(model).failpoints().without_hang_timeout()
}

/// The value of a metric without labels.
#[track_caller]
fn metric(service: &WorkerHarness, name: &str) -> u64 {
    let reply = service.get("/metrics");
    let text = reply.text();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

fn adopted(service: &WorkerHarness) -> u64 {
    metric(service, "orcd_adopted_tokens_total")
}

/// Pages that were found damaged; workers tell of them with their heartbeats.
#[track_caller]
fn wait_for_refused_pages(service: &WorkerHarness) {
    let refused = || metric(service, "orcd_kv_pages_refused_total") > 0;
    assert!(wait_until(SOON, refused), "no page was refused");
}

#[track_caller]
fn assert_same(expected: &Transcript, found: &Transcript, what: &str) {
    assert_eq!(expected.token_bytes(), found.token_bytes(), "{what}");
    let (expected, found) = (expected.end(), found.end());
    assert_eq!(expected.stop_reason, found.stop_reason, "{what}");
}

/// The memory of the pool can be reached here, or the test says that it was skipped.
fn reaches_memory() -> bool {
    let is_cpu = paths::device() == "cpu";
    if !is_cpu {
        report::skipped("the pool's memory is in the GPU, and nobody else reaches it");
    }
    is_cpu
}

#[test]
fn a_prompt_that_is_kept_gives_the_same_tokens() {
    let service = WorkerHarness::start(Model::Tiny);
    let off = Starter::new(Model::Tiny).flag("--prefix-cache", "off");
    let off = off.start();
    for (number, length) in [63, 64, 65, 191, 192, 193].into_iter().enumerate() {
        let prompt = ids(number as u64, length);
        let job = job("a", &prompt);
        let [cold, kept] = [service.run(&job), service.run(&job)];
        let [never, again] = [off.run(&job), off.run(&job)];
        for (found, cached, what) in [
            (&cold, 0, "cold"),
            // Whole pages, and never the last token: something is to be drawn.
            (&kept, (length / 64 * 64).min(length - 1), "kept"),
            (&again, 0, "with the cache turned off"),
        ] {
            let what = format!("{length} tokens, {what}");
            assert_same(&never, found, &what);
            assert_eq!(found.end().cached_tokens, cached, "{what}");
        }
    }
    // Another prompt that begins alike, and goes on in the middle of a page.
    let mut prompt = ids(5, 150);
    prompt.extend(ids(9, 80));
    let job = job("b", &prompt);
    let found = service.run(&job);
    assert_eq!(found.end().cached_tokens, 128);
    assert_same(&off.run(&job), &found, "a beginning that is kept");
}

#[test]
fn outputs_are_kept_too_as_the_next_turn_asks_for_them() {
    let service = WorkerHarness::start(Model::Tiny);
    let off = Starter::new(Model::Tiny).flag("--prefix-cache", "off");
    let first = job("a", &ids(1, 100)).set("max_tokens", 100);
    let answer = service.run(&first);
    let mut turn = ids(1, 100);
    turn.extend(answer.ids());
    turn.extend(ids(2, 30));
    let next = service.run(&job("b", &turn));
    // The last token was drawn and never processed.
    assert_eq!(next.end().cached_tokens, 192);
    assert_same(&off.start().run(&job("b", &turn)), &next, "the next turn");
}

#[test]
fn who_does_not_share_finds_nothing_and_leaves_nothing() {
    let service = WorkerHarness::start(Model::Tiny);
    let run = |number: u64, changes: &[(&str, Value)]| {
        let job = job("a", &ids(number, 130));
        let set = |job: Job, (name, value): &(&str, Value)| job.set(name, value.clone());
        service.run(&changes.iter().fold(job, set))
    };
    let alone = [("cache", json!(false))];
    let salted = |salt: &str| [("cache_salt", json!(salt))];
    let first = run(1, &alone);
    for (changes, cached) in [
        (&alone[..], 0),
        (&[], 0),
        (&alone, 0),
        (&salted("a"), 0),
        (&salted("b"), 0),
        (&salted("a"), 128),
        (&[], 128),
    ] {
        let found = run(1, changes);
        assert_eq!(found.end().cached_tokens, cached, "{changes:?}");
        assert_same(&first, &found, &format!("{changes:?}"));
    }
}

#[test]
fn choices_of_one_prompt_and_penalties_are_the_same_from_kept_pages() {
    let [on, off] = ["on", "off"].map(|value| {
        let starter = Starter::new(Model::Tiny).flag("--prefix-cache", value);
        starter.start()
    });
    let ask = |service: &WorkerHarness, body: &Value| {
        let reply = service.post("/v1/completions", body);
        assert_eq!(reply.status(), 200, "{}", reply.text());
        let answer = reply.json();
        let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        (answer["choices"].clone(), cached.as_u64().unwrap())
    };
    for (number, changes) in [
        json!({"temperature": 1.2, "logprobs": 2}),
        json!({"temperature": 0, "frequency_penalty": 0.6}),
        json!({"temperature": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.5, "min_p": 0.02}),
        json!({"temperature": 1.4, "top_p": 0.9, "logit_bias": {"150": 3, "151": -100}}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = json!({
            "prompt": ids(number as u64, 192), "seed": 8, "max_tokens": 50, "n": 2, "top_k": 64,
        });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        let expected = ask(&off, &body);
        assert_eq!(expected.1, 0, "with the cache turned off");
        assert_eq!(ask(&on, &body).0, expected.0, "cold: {changes}");
        let (choices, cached) = ask(&on, &body);
        assert_eq!(choices, expected.0, "kept: {changes}");
        // The prompt is counted once.
        assert_eq!(cached, 191, "{changes}");
    }
}

#[test]
fn pages_that_had_to_go_meanwhile_are_computed_again() {
    let roomy = WorkerHarness::start(Model::Tiny);
    let small = Starter::new(Model::Tiny).flag("--debug-kv-pages", 8);
    let small = small.start();
    let [long, other] = [(1, 320), (2, 400)].map(|(number, length)| job("a", &ids(number, length)));
    let expected = roomy.run(&long);
    for round in 0..3 {
        let found = small.run(&long);
        assert_same(&expected, &found, &format!("round {round}"));
        assert!(found.end().cached_tokens < 320, "the other took none");
        assert_eq!(small.run(&long).end().cached_tokens, 319);
        assert_same(&roomy.run(&other), &small.run(&other), "the other");
    }
    assert_eq!(small.health()["worker"]["restarts"], 0);
}

/// So many steps, then it stands.
const FURTHER: &str = "stop 8";

/// Jobs with long prompts, two of which begin alike. One shares with nobody.
fn long_jobs() -> Vec<Job> {
    let mut fork = ids(1, 300);
    fork.extend(ids(4, 90));
    [
        job("long", &ids(1, 400)),
        job("fork", &fork).set("repetition_penalty", 1.2),
        job("alone", &ids(3, 260)).set("cache", false),
        job("short", &ids(2, 20)).set("temperature", 0),
    ]
    .map(|job| job.set("max_tokens", 200))
    .to_vec()
}

/// The jobs run together; `disturb` comes when all prompts are processed, some steps later, and the worker is stopped.
#[track_caller]
fn run_disturbed(service: &WorkerHarness, jobs: &[Job], disturb: impl FnOnce()) -> Vec<Transcript> {
    let first_tokens = || metric(service, "orcd_first_token_seconds_count");
    let all = first_tokens() + jobs.len() as u64;
    service.hold_before_step(1);
    let streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
    service.wait_for_health(SOON, |h| h["jobs"]["running"] == jobs.len());
    service.wait_for_trigger("step");
    service.set_failpoint("step", FURTHER);
    service.release();
    // What a step takes of a prompt depends on the machine.
    let mut are_processed = false;
    loop {
        service.wait_for_trigger("step");
        let worker = service.worker();
        assert!(wait_until(SOON, || worker.is_stopped()), "it goes on");
        if are_processed {
            break;
        }
        are_processed = first_tokens() == all;
        service.set_failpoint("step", FURTHER);
        worker.signal(Signal::SIGCONT);
    }
    disturb();
    streams.into_iter().map(Stream::finish).collect()
}

#[track_caller]
fn assert_unchanged(expected: &[Transcript], found: &[Transcript], what: &str) {
    for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_same(expected, found, &format!("job {at}, {what}"));
    }
    assert_eq!(expected.len(), found.len());
}

/// What the jobs say where nothing is kept and nobody dies.
fn undisturbed(model: Model, jobs: &[Job]) -> Vec<Transcript> {
    let service = Starter::new(model).flag("--prefix-cache", "off").start();
    jobs.iter().map(|job| service.run(job)).collect()
}

#[test]
fn the_next_worker_goes_on_with_what_a_killed_one_had_computed() {
    let expected = undisturbed(Model::Brisk, &long_jobs());
    for standby in [false, true] {
        let starter = starter(Model::Brisk);
        let service = if standby {
            starter.arg("--standby").start()
        } else {
            starter.start()
        };
        service.wait_for_health(SOON, |h| h["standby"] == standby);
        let found = run_disturbed(&service, &long_jobs(), || {
            assert_eq!(adopted(&service), 0);
            service.kill_worker();
        });
        assert_unchanged(&expected, &found, &format!("standby {standby}"));
        // Six, six and four whole pages of prompts, and what the outputs filled.
        let adopted = adopted(&service);
        assert!(adopted >= (6 + 6 + 4) * 64, "{adopted}");
        let kept = service.wait_for_health(SOON, |h| h["kv"]["pages_used"] == 0);
        assert_eq!(kept["worker"]["restarts"], 1);
        // What was taken over is kept on: whole pages, and what the dead worker left of the next one until somebody
        // takes that. What shares with nobody is not.
        let again = service.run(&long_jobs()[0]);
        assert_same(&expected[0], &again, "after all that");
        let cached = again.end().cached_tokens;
        assert!((384..400).contains(&cached), "{cached}");
        assert_eq!(metric(&service, "orcd_kv_pages_refused_total"), 0);
    }
}

#[test]
fn without_the_cache_a_job_still_finds_its_own_pages_after_a_crash() {
    let jobs = &long_jobs()[..1];
    let expected = undisturbed(Model::Brisk, jobs);
    let service = starter(Model::Brisk).flag("--prefix-cache", "off").start();
    let found = run_disturbed(&service, jobs, || {
        service.kill_worker();
    });
    assert_unchanged(&expected, &found, "with the cache turned off");
    assert!(adopted(&service) >= 384, "{}", adopted(&service));
    assert_eq!(service.run(&jobs[0]).end().cached_tokens, 0);
}

#[test]
fn the_second_of_two_deaths_without_progress_ends_all_belief_in_pages() {
    let jobs = long_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    for standby in [false, true] {
        let starter = starter(Model::Brisk);
        let service = if standby {
            starter.arg("--standby").start()
        } else {
            starter.start()
        };
        service.wait_for_health(SOON, |h| h["standby"] == standby);
        let mut first = 0;
        let found = run_disturbed(&service, &jobs, || {
            // For the next worker, before its first step.
            service.set_failpoint("step", "sleep");
            service.kill_worker();
            service.wait_for_trigger("step");
            // Whatever it has said of its jobs arrives.
            assert!(wait_until(SOON, || adopted(&service) >= (6 + 6 + 4) * 64));
            first = adopted(&service);
            service.kill_worker();
        });
        assert_unchanged(&expected, &found, &format!("standby {standby}"));
        // It may have been one after the other, so a job finds what another one of those computed.
        assert!(
            adopted(&service) <= first + 5 * 64,
            "something was believed"
        );
        let replays: Vec<_> = found.iter().map(|found| found.end().replays).collect();
        assert_eq!(replays, [2; 4]);
    }
}

/// A worker dies at each of the places where a pool is handed over or changed, and the next one at the same again.
#[test]
fn a_death_at_any_place_where_the_pool_changes_hands_changes_no_byte() {
    let jobs = long_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    for (point, action) in [
        ("step", "kill"),
        ("sampled", "kill"),
        ("adopt", "kill"),
        ("ledger", "kill"),
        ("command", "kill 2"),
    ] {
        for standby in [false, true] {
            let starter = starter(Model::Brisk);
            let service = if standby {
                starter.arg("--standby").start()
            } else {
                starter.start()
            };
            service.wait_for_health(SOON, |h| h["standby"] == standby);
            let found = run_disturbed(&service, &jobs, || {
                service.set_failpoint(point, action);
                service.kill_worker();
                service.wait_for_trigger(point);
            });
            let what = format!("{point}, standby {standby}");
            assert_unchanged(&expected, &found, &what);
            assert_eq!(service.run(&jobs[0]).ids(), expected[0].ids(), "{what}");
        }
    }
}

#[test]
fn a_worker_that_dies_before_the_ledger_knows_of_full_pages_changes_no_byte() {
    let jobs = long_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    let service = starter(Model::Brisk).start();
    // The first time after the prompts, and then some page of an output.
    for action in ["kill", "kill 2"] {
        service.set_failpoint("ledger", action);
        let found = service.run_together(&jobs);
        assert!(!service.is_failpoint_set("ledger"));
        assert_unchanged(&expected, &found, action);
    }
}

/// Jobs that come to hold three times as many pages as there are.
fn many_jobs() -> Vec<Job> {
    let one = |n: u64| {
        let mut prompt = ids(n % 2, 128);
        prompt.extend(ids(n, 40));
        job(&format!("job-{n}"), &prompt).set("max_tokens", 60 + 20 * n)
    };
    (0..6).map(one).collect()
}

const FEW_PAGES: u32 = 8;

/// Two jobs that both come to fill the small pool, each alone.
fn rivals() -> Vec<Job> {
    let one = |n: u64| job(&format!("rival-{n}"), &ids(n, 168)).set("max_tokens", 330);
    (7..9).map(one).collect()
}

/// The rivals run side by side with a fault before them.
#[track_caller]
fn run_rivals(service: &WorkerHarness, point: &str, action: &str) -> Vec<Transcript> {
    service.hold_before_step(1);
    let streams: Vec<_> = rivals().iter().map(|job| service.execute(job)).collect();
    service.wait_for_health(SOON, |h| h["jobs"]["running"] == 2);
    service.wait_for_trigger("step");
    service.set_failpoint(point, action);
    service.release();
    let found = streams.into_iter().map(Stream::finish).collect();
    assert!(!service.is_failpoint_set(point), "{point}");
    found
}

#[test]
fn a_worker_that_dies_as_pages_change_owners_in_a_small_pool_changes_no_byte() {
    let jobs = many_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    let service = starter(Model::Brisk).flag("--debug-kv-pages", FEW_PAGES);
    let service = service.flag("--max-restarts", 100).start();
    for (point, action) in [("evict", "kill"), ("evict", "kill 5"), ("ledger", "kill 3")] {
        service.set_failpoint(point, action);
        let found = service.run_together(&jobs);
        assert!(!service.is_failpoint_set(point), "{point}, {action}");
        assert_unchanged(&expected, &found, &format!("{point}, {action}"));
    }
    // And in the failover itself.
    for point in ["evict", "adopt"] {
        service.set_failpoint("step", "sleep 40");
        let streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
        service.wait_for_trigger("step");
        service.set_failpoint(point, "kill");
        service.kill_worker();
        let found: Vec<_> = streams.into_iter().map(Stream::finish).collect();
        assert!(!service.is_failpoint_set(point), "{point}");
        assert_unchanged(&expected, &found, &format!("{point} in the failover"));
    }
}

#[test]
fn a_worker_that_dies_as_a_job_gives_its_pages_back_changes_no_byte() {
    let expected = undisturbed(Model::Brisk, &rivals());
    let service = starter(Model::Brisk).flag("--debug-kv-pages", FEW_PAGES);
    let service = service.flag("--max-restarts", 100).start();
    for action in ["kill", "abort", "exit"] {
        let found = run_rivals(&service, "preempt", action);
        assert_unchanged(&expected, &found, action);
    }
}

#[test]
fn a_stopped_worker_with_a_full_pool_is_superseded_and_changes_no_byte() {
    let expected = undisturbed(Model::Brisk, &rivals());
    for standby in [false, true] {
        let mut starter = Starter::new(Model::Brisk).failpoints();
        starter = starter.flag("--debug-kv-pages", FEW_PAGES);
        if standby {
            starter = starter.arg("--standby");
        }
        let service = starter.start();
        service.wait_for_health(SOON, |h| h["standby"] == standby);
        let stopped = service.worker();
        // No page is left by the first preemption. What stood before the first step may have been taken for a hang.
        let found = run_rivals(&service, "preempt", "stop");
        assert_unchanged(&expected, &found, &format!("standby {standby}"));
        assert!(stopped.is_gone_within(SOON));
        let health = service.wait_for_health(SOON, |h| h["kv"]["pages_used"] == 0);
        let kv = &health["kv"];
        let count = |name: &str| kv[name].as_u64().unwrap();
        let sum = count("pages_free") + count("pages_cached");
        assert_eq!(sum, u64::from(FEW_PAGES), "{kv}");
        assert!(health["worker"]["restarts"].as_u64() > Some(0));
    }
}

#[test]
fn a_flipped_bit_in_a_page_that_is_taken_over_is_found() {
    if !reaches_memory() {
        return;
    }
    let jobs = long_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    let service = starter(Model::Brisk).start();
    let found = run_disturbed(&service, &jobs, || {
        // The worker will read nothing any more.
        let flipped = PoolFiles::of(&service).flip_bits();
        assert!(flipped >= 6 + 2 + 4, "{flipped}");
        service.kill_worker();
    });
    assert_unchanged(&expected, &found, "a bit of each page was flipped");
    assert_eq!(adopted(&service), 0);
    wait_for_refused_pages(&service);
    service.wait_for_log("KV pages that are not what the ledger says of them: ");
}

#[test]
fn pages_that_were_kept_and_damaged_are_found_by_the_next_prompt() {
    if !reaches_memory() {
        return;
    }
    let job = &long_jobs()[0];
    let service = starter(Model::Tiny).start();
    let expected = service.run(job);
    assert_eq!(service.run(job).end().cached_tokens, 384);
    // It reads no page while it stands, and there is no job.
    let worker = service.worker();
    worker.signal(Signal::SIGSTOP);
    PoolFiles::of(&service).flip_bits();
    worker.signal(Signal::SIGKILL);
    assert!(worker.is_gone_within(SOON));
    service.wait_for_health(SOON, |h| {
        h["worker"]["restarts"] == 1 && h["status"] == "healthy"
    });
    let found = service.run(job);
    assert_eq!(found.end().cached_tokens, 0);
    assert_same(&expected, &found, "its pages were damaged");
    // All of them were: none is left for another prompt to find.
    assert_eq!(service.run(job).end().cached_tokens, 384);
    let refused = || metric(&service, "orcd_kv_pages_refused_total");
    assert!(wait_until(SOON, || refused() >= 6), "{}", refused());
    assert_eq!(refused(), 6);
}

#[test]
fn a_torn_ledger_changes_no_byte() {
    if !reaches_memory() {
        return;
    }
    let jobs = long_jobs();
    let expected = undisturbed(Model::Brisk, &jobs);
    let service = starter(Model::Brisk).flag("--max-restarts", 100).start();
    for seed in 1..=12_u64 {
        // A generator that is good enough to choose places.
        let mut state = seed;
        let random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let found = run_disturbed(&service, &jobs, || {
            PoolFiles::of(&service).tear_ledger(random);
            service.kill_worker();
        });
        assert_unchanged(&expected, &found, &format!("seed {seed}"));
    }
}
