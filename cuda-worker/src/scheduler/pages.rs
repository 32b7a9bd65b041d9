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

/// The jobs that have to give their pages back before the next step, youngest first, so that the others' tokens fit into
/// a pool of `pages`.
///
/// **No livelock.** The oldest job is never among them. Alone it fits, for no job is taken whose positions are more than
/// the pool's, so as long as it is there it comes further with each step, and it ends. Then the next oldest is the
/// oldest: those that were preempted keep their keys, and a supervisor gives them before any newer job.
#[must_use]
pub fn preempted(pages: u32, claims: &[Claim]) -> Vec<JobKey> {
    let mut by_age = claims.to_vec();
    by_age.sort_unstable_by_key(|claim| claim.key);
    let mut claimed: u64 = by_age.iter().map(|claim| claim.pages()).sum();
    let mut out = Vec::new();
    while claimed > u64::from(pages) && by_age.len() > 1 {
        let Some(youngest) = by_age.pop() else { break };
        claimed -= youngest.pages();
        out.push(youngest.key);
    }
    out
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
        let claims: Vec<Claim> = claims.iter().map(claim).collect();
        preempted(pages, &claims).iter().map(|key| key.0).collect()
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
}
