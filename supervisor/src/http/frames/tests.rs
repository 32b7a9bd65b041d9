use orcd_shared::job::JobKey;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::jobs::event_log::EventLog;
use crate::jobs::{JobEvent, Numbered};

fn frames(log: &EventLog, next: u64) -> Frames {
    let (disconnects, _) = mpsc::unbounded_channel();
    Frames::new(
        JobStream::new(JobKey(1), log.reader(next), disconnects),
        None,
    )
}

fn started() -> Numbered {
    let event = JobEvent::Started {
        job_id: "j".into(),
        model: "m".into(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        prompt_tokens: 1,
        seed: 1,
        fingerprint: "f".into(),
        request_digest: "d".into(),
        template_time: "t".into(),
    };
    Numbered { id: 0, event }
}

fn token(index: u32) -> Numbered {
    let event = JobEvent::Token {
        text: "x".into(),
        index,
        id: 7,
        logprob: None,
        top: None,
    };
    let id = u64::from(index) + 1;
    Numbered { id, event }
}

async fn text(frames: &mut Frames) -> String {
    let frame = frames.next().await.unwrap().unwrap();
    String::from_utf8(frame.to_vec()).unwrap()
}

/// The comments of `span` without an event, and the longest time between two of them.
async fn silence(frames: &mut Frames, span: Duration) -> (Vec<String>, Duration) {
    let (begin, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut comments = Vec::new();
    while let Ok(comment) = timeout(span - begin.elapsed(), text(frames)).await {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        comments.push(comment);
    }
    (comments, longest.max(last.elapsed()))
}

const PROMISED: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(61);

#[tokio::test(start_paused = true)]
async fn no_phase_of_a_job_is_silent_for_longer_than_promised() {
    let log = EventLog::new(true, Default::default());
    let mut frames = frames(&log, 0);
    let begin = Instant::now();
    assert_eq!(text(&mut frames).await, ": queued\n\n");
    assert!(begin.elapsed() < Duration::from_millis(10), "at once");
    // In the queue; from `started` to the first token; between two tokens, which is where a lost
    // worker and a replay are.
    for (event, comment) in [
        (None, ": queued\n\n"),
        (Some(started()), ": working\n\n"),
        (Some(token(0)), ": working\n\n"),
        (Some(token(1)), ": working\n\n"),
    ] {
        if let Some(event) = event {
            log.push(event);
            assert!(text(&mut frames).await.starts_with("event: "));
        }
        let (comments, longest) = silence(&mut frames, LONG).await;
        assert!(comments.len() > 10, "{comments:?}");
        assert!(comments.iter().all(|c| c == comment), "{comments:?}");
        assert!(longest <= PROMISED, "{longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_resumed_hears_of_a_job_that_makes_no_token() {
    let log = EventLog::new(true, Default::default());
    log.push(started());
    let mut frames = frames(&log, 1);
    let (comments, longest) = silence(&mut frames, LONG).await;
    assert!(comments.iter().all(|c| c == ": working\n\n"));
    assert!(longest <= PROMISED, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_beside_events_that_come_often() {
    let log = EventLog::new(false, Default::default());
    log.push(started());
    let mut frames = frames(&log, 0);
    for index in 0..100 {
        assert!(text(&mut frames).await.starts_with("event: "));
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.push(token(index));
    }
}

#[tokio::test]
async fn a_log_that_is_cut_is_no_end() {
    for keeps in [false, true] {
        let log = EventLog::new(keeps, Default::default());
        log.push(started());
        let mut frames = frames(&log, 0);
        assert!(text(&mut frames).await.starts_with("event: started\n"));
        log.cut();
        assert!(frames.next().await.unwrap().is_err());
        assert!(frames.next().await.is_none());
    }
}
