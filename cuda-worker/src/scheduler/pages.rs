//! Who gives its KV pages back when they run out. Pure. It decides only about time: a job that begins again with its
//! prompt and its tokens gets the same ones.

use orcd_shared::job::JobKey;
use orcd_shared::kv;

/// What a job holds of the pool, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The job; keys rise with submission.
    pub key: JobKey,
    /// Tokens of its sequence, those that are still to be processed included.
    pub tokens: usize,
}

impl Claim {
    fn pages(self) -> u64 {
        kv::pages(self.tokens as u64)
    }
}

/// Whether all jobs' tokens fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// They do.
    Fits,
    /// Not as long as this job, the youngest, keeps its pages.
    Without(JobKey),
    /// Not even those of a single job: some pages can't be used at present.
    Later,
}

/// Whether the tokens of the next step fit into `capacity` pages.
///
/// **No livelock.** The oldest job never has to leave. Alone it fits, for no job is taken whose positions are more than
/// the pool's, so as long as it is there it comes further with each step, and it ends. Then the next oldest is the
/// oldest: those that were preempted keep their keys, and a supervisor gives them before any newer job.
#[must_use]
pub fn fit(capacity: u32, claims: impl Iterator<Item = Claim>) -> Fit {
    let (mut claimed, mut jobs, mut youngest) = (0_u64, 0_usize, None);
    for claim in claims {
        claimed += claim.pages();
        jobs += 1;
        youngest = youngest.max(Some(claim.key));
    }
    match youngest {
        _ if claimed <= u64::from(capacity) => Fit::Fits,
        Some(key) if jobs > 1 => Fit::Without(key),
        _ => Fit::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and tokens; who has to go.
    fn gone(pages: u32, claims: &[(u64, usize)]) -> Vec<u64> {
        let claim = |&(key, tokens): &(u64, usize)| Claim {
            key: JobKey(key),
            tokens,
        };
        let mut claims: Vec<Claim> = claims.iter().map(claim).collect();
        let mut gone = Vec::new();
        while let Fit::Without(key) = fit(pages, claims.iter().copied()) {
            claims.retain(|claim| claim.key != key);
            gone.push(key.0);
        }
        gone
    }

    #[test]
    fn nobody_goes_while_all_fit() {
        assert_eq!(gone(4, &[(1, 64), (2, 65), (3, 1)]), [0; 0]);
        assert_eq!(gone(0, &[]), [0; 0]);
    }

    #[test]
    fn the_youngest_go_first_in_whatever_order_they_stand() {
        assert_eq!(gone(3, &[(2, 65), (9, 1), (5, 64), (1, 1)]), [9, 5]);
    }

    #[test]
    fn the_oldest_stays_whatever_it_takes() {
        assert_eq!(gone(1, &[(7, 300), (8, 1)]), [8]);
    }

    #[test]
    fn a_job_that_came_back_is_as_old_as_before() {
        // Job 3 is in the middle of its tokens again, job 4 began meanwhile.
        assert_eq!(gone(2, &[(4, 64), (3, 128)]), [4]);
    }

    #[test]
    fn a_job_alone_waits_for_pages_that_can_not_be_used() {
        let claim = Claim {
            key: JobKey(7),
            tokens: 65,
        };
        assert_eq!(fit(1, [claim].into_iter()), Fit::Later);
        assert_eq!(fit(2, [claim].into_iter()), Fit::Fits);
    }
}
