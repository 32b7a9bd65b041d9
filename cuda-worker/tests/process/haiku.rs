//! The model that ships. It also shows what a step costs outside of the engine.

use std::time::Instant;

use orcd_shared::protocol::message::ToSupervisor;

use crate::model;
use crate::supervisor::{Worker, job, load};

#[test]
fn model_that_ships_runs_and_steps_cost_little_beside_the_engine() {
    let Some(path) = model::haiku() else {
        eprintln!("SKIPPED: models/haiku-nano-q4_k_m.gguf is not there");
        return;
    };
    let (mut worker, info) = Worker::ready(load(&path));
    let tokens = 200.min(info.context - 10);
    worker.submit(job(1, 5, tokens));
    let mut steps = Vec::new();
    while steps.len() < tokens as usize {
        let Some(ToSupervisor::Step(report)) = worker.receive() else {
            panic!("no step")
        };
        steps.extend(
            report
                .tokens
                .first()
                .map(|_| (Instant::now(), report.step_us)),
        );
    }
    let (begun, ended) = (steps[0].0, steps[steps.len() - 1].0);
    let count = steps.len() as u32 - 1;
    let whole = (ended - begun).as_micros() as u32 / count;
    let engine = steps[1..].iter().map(|s| s.1).sum::<u32>() / count;
    eprintln!("a step takes {whole} us, {engine} us of them in the engine");
}
