//! Writes that build on one another, through the writer.

use myelin_replication::{Lane, WriteError};

use crate::words::{database, process, words};

#[tokio::test]
async fn what_builds_on_a_write_that_failed_is_not_written() {
    let database = database().await;
    let main = process(&database, "main").await;
    let (lane, other) = (Lane::new(), Lane::new());
    // All of them wait before the first is written, as the events of a busy room do.
    let first = main.writer.append_in(&lane, words(&["a"])).unwrap();
    let bad = main.writer.append_in(&lane, words(&["bad"])).unwrap();
    let later = main.writer.append_in(&lane, words(&["c"])).unwrap();
    let stranger = main.writer.append_in(&other, words(&["d"])).unwrap();
    let (first, bad, later, stranger) = (first.await, bad.await, later.await, stranger.await);
    assert!(first.is_ok() && stranger.is_ok(), "{first:?} {stranger:?}");
    assert!(matches!(bad, Err(WriteError::Storage(_))), "{bad:?}");
    assert!(matches!(later, Err(WriteError::Superseded)), "{later:?}");
    assert_eq!(main.seen(), ["a", "d"]);

    assert_eq!((lane.is_broken(), other.is_broken()), (true, false));
    let late = main.writer.append_in(&lane, words(&["e"])).unwrap().await;
    assert!(matches!(late, Err(WriteError::Superseded)), "{late:?}");
    main.writer.append_in(&Lane::new(), words(&["f"])).unwrap().await.expect("a new lane goes on");
    assert_eq!(main.seen(), ["a", "d", "f"]);
}
