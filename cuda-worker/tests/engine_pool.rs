//! The CPU backend's threads: what goes wrong on one of them is told to the caller.

use cuda_worker::probe::throwing_chunks;

/// Where an exception left a thread of the pool, the process ended without a word.
#[test]
fn what_a_chunk_throws_comes_out_on_the_callers_thread() {
    for threads in [1, 2, 3, 8] {
        for chunks in [1, 2, 7, 300] {
            for bad in [0, chunks / 2, chunks - 1] {
                let at = format!("{threads} threads, {chunks} chunks, bad from {bad} on");
                let error = throwing_chunks(threads, chunks, bad).expect_err(&at);
                let after = format!("a chunk has thrown, and {chunks} ran after it");
                assert!(error.ends_with(&after), "{at}: {error}");
            }
            assert_eq!(throwing_chunks(threads, chunks, chunks), Ok(chunks));
        }
    }
}
