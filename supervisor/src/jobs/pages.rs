//! Whether KV memory has room for another job: a decision on plain values. The worker decides again, by what it holds;
//! this keeps a job where it costs nothing until then, and its place in the order.

use orcd_shared::kv;

/// What running jobs have of the pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// Jobs.
    jobs: u64,
    /// Pages that their tokens take.
    pages: u64,
    /// Jobs that may come to need another page.
    growing: u64,
}

impl Claims {
    /// Counts a job that has so many tokens by now, and `most` at the end.
    pub(super) fn add(&mut self, tokens: u64, most: u64) {
        self.jobs += 1;
        self.pages += kv::pages(tokens);
        self.growing += u64::from(kv::pages(most) > kv::pages(tokens));
    }
}

/// How a job begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// For the first time, or again after it was preempted.
    Fresh,
    /// Again, because a worker was lost: it had room beside the others.
    Replay,
}

/// Whether a job that has `tokens` by now may begin in a pool of `pages` beside those that run. A fresh one leaves each of
/// them a page to grow into, or it might have to leave at once. Where none runs every job begins: those that never fit were
/// refused.
pub(super) fn has_room(pages: u32, running: Claims, tokens: u64, beginning: Beginning) -> bool {
    let kept = match beginning {
        Beginning::Fresh => running.growing,
        Beginning::Replay => 0,
    };
    running.jobs == 0 || running.pages + kept + kv::pages(tokens) <= u64::from(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs by their tokens, by now and at most.
    fn claims(jobs: &[(u64, u64)]) -> Claims {
        let mut claims = Claims::default();
        jobs.iter()
            .for_each(|&(tokens, most)| claims.add(tokens, most));
        claims
    }

    #[test]
    fn a_prompt_needs_its_pages_and_leaves_each_job_one_to_grow_into() {
        let running = claims(&[(60, 200), (64, 64), (70, 128)]);
        assert_eq!(
            running,
            Claims {
                jobs: 3,
                pages: 4,
                growing: 1
            }
        );
        let fresh = |pages, tokens| has_room(pages, running, tokens, Beginning::Fresh);
        assert!(fresh(7, 65) && fresh(6, 64));
        assert!(!fresh(6, 65) && !fresh(5, 1));
    }

    #[test]
    fn a_replay_takes_what_it_had() {
        let running = claims(&[(60, 200), (60, 200)]);
        assert!(has_room(3, running, 64, Beginning::Replay));
        assert!(!has_room(3, running, 65, Beginning::Replay));
        assert!(!has_room(3, running, 64, Beginning::Fresh));
    }

    #[test]
    fn a_job_alone_always_begins() {
        assert!(has_room(1, Claims::default(), 10_000, Beginning::Fresh));
    }

    #[test]
    fn a_pool_for_all_contexts_has_room_for_whoever_has_a_slot() {
        // Three of four slots of 200 positions, whatever they hold.
        for held in [1, 64, 100, 193, 200] {
            let running = claims(&[(held, 200); 3]);
            assert!(has_room(16, running, 199, Beginning::Fresh), "{held}");
        }
    }
}
