//! A stream from its writer over the database to its readers.

use std::time::Duration;

use myelin_leases::{LeaseError, Session};
use myelin_replication::{Combined, Heading, Notice, Stamped, Stream, WriteError};
use myelin_storage::{Result, StorageError, execute, query};
use myelin_types::StreamId;

use crate::words::{Words, database, process, words};

#[tokio::test]
async fn what_was_appended_has_been_seen_by_subscribers_when_the_writer_answers() {
    let database = database().await;
    let main = process(&database, "main").await;
    let ids = main.writer.append(words(&["one", "two"])).await.unwrap();
    assert_eq!(main.seen(), ["one", "two"]);
    assert!(ids[0] < ids[1]);
    assert!(main.feed.position().covers(main.session.writer(), ids[1]));
    assert!(main.writer.append(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_writers_at_once_lose_and_repeat_nothing() {
    let database = database().await;
    let main = process(&database, "main").await;
    let appends = (0..500).map(|n| main.writer.append(vec![format!("w{n}")]));
    let outcomes = futures_util::future::join_all(appends).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let mut ids: Vec<StreamId> = outcomes.into_iter().flat_map(Result::unwrap).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 500);
    assert_eq!(main.seen().len(), 500);
}

#[tokio::test]
async fn a_bad_request_does_not_take_down_those_that_share_its_transaction() {
    let database = database().await;
    let main = process(&database, "main").await;
    let requests = [words(&["a"]), words(&["b", "bad"]), words(&["c"])];
    let outcomes = futures_util::future::join_all(requests.map(|request| main.writer.append(request))).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(WriteError::Storage(_))), "{outcomes:?}");
    assert_eq!(main.seen(), ["a", "c"]);
    main.writer.append(words(&["d"])).await.expect("the writer goes on");
}

#[tokio::test]
async fn a_transaction_stands_or_falls_with_its_rows() {
    let database = database().await;
    let main = process(&database, "main").await;
    let good = main.writer.transact(|transaction| {
        Box::pin(async move {
            execute(transaction, "INSERT INTO strings (value) VALUES ('kept')", &[]).await?;
            Ok((42, words(&["good"])))
        })
    });
    assert_eq!(good.await.unwrap(), 42);
    let bad = main.writer.transact(|transaction| {
        Box::pin(async move {
            execute(transaction, "INSERT INTO strings (value) VALUES ('lost')", &[]).await?;
            Ok(((), words(&["bad"])))
        })
    });
    assert!(bad.await.is_err());
    let client = database.get().await.unwrap();
    let kept = query(&client, "SELECT value FROM strings", &[]).await.unwrap();
    assert_eq!(kept.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(main.seen(), ["good"]);
}

#[tokio::test]
async fn requests_that_come_at_once_share_transactions_and_a_bad_one_falls_alone() {
    let database = database().await;
    let main = process(&database, "main").await;
    let combined = Combined::new(main.writer.clone(), 8, |transaction, requests: Vec<&'static str>| {
        Box::pin(async move {
            let shared = requests.join(" ");
            execute(transaction, "INSERT INTO strings (value) VALUES ($1)", &[&shared]).await?;
            let answers = requests.iter().map(|request| request.to_uppercase()).collect();
            Ok((answers, words(&requests)))
        })
    });
    let serve = async |requests: &[&'static str]| {
        futures_util::future::join_all(requests.iter().map(|request| combined.serve(request))).await
    };
    let answers: Vec<String> = serve(&["a", "b", "c"]).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, ["A", "B", "C"]);
    assert_eq!(main.seen(), ["a", "b", "c"]);
    let answers = serve(&["d", "bad", "e"]).await;
    assert_eq!((answers[0].as_deref().ok(), answers[2].as_deref().ok()), (Some("D"), Some("E")));
    assert!(matches!(answers[1], Err(WriteError::Storage(_))), "{answers:?}");
    assert_eq!(main.seen(), ["a", "b", "c", "d", "e"]);
    let client = database.get().await.unwrap();
    let transactions = query(&client, "SELECT value FROM strings ORDER BY string_id", &[]).await.unwrap();
    let transactions: Vec<String> = transactions.iter().map(|row| row.get(0)).collect();
    assert_eq!(transactions, ["a b c", "d", "e"], "three in one, and of the next three two alone");
}

#[tokio::test]
async fn a_reader_that_missed_notices_reads_them_from_the_database_once() {
    let database = database().await;
    let (main, reader) = (process(&database, "main").await, process(&database, "reader").await);
    let ids = main.writer.append(words(&["one", "two"])).await.unwrap();
    let more = main.writer.append(words(&["three"])).await.unwrap();
    // Only the last notice arrives, twice.
    let heading = Heading {
        after: myelin_types::Position::default(),
        writer: main.session.writer(),
        previous: ids[1],
        position: more[0],
        writers: 2,
    };
    let notice = Notice {
        heading,
        rows: vec![Stamped { id: more[0], writer: main.session.writer(), row: "three".to_owned() }].into(),
    };
    assert!(!reader.feed.deliver(&notice), "the gap is noticed");
    assert!(reader.seen().is_empty());
    assert!(reader.feed.wait_for(&main.feed.position(), Duration::from_secs(10)).await);
    assert!(reader.feed.deliver(&notice), "nothing new");
    assert_eq!(reader.seen(), ["one", "two", "three"]);
}

#[tokio::test]
async fn long_gaps_are_read_page_by_page_over_several_writers() {
    let database = database().await;
    let (one, two) = (process(&database, "one").await, process(&database, "two").await);
    let reader = process(&database, "reader").await;
    for round in 0..4 {
        one.writer.append((0..400).map(|n| format!("one-{round}-{n}")).collect()).await.unwrap();
        two.writer.append((0..300).map(|n| format!("two-{round}-{n}")).collect()).await.unwrap();
    }
    reader.feed.catch_up().await.unwrap();
    let seen = reader.seen();
    assert_eq!(seen.len(), 2800);
    assert_eq!(seen.iter().collect::<std::collections::HashSet<_>>().len(), 2800);
    let of_one: Vec<_> = seen.iter().filter(|word| word.starts_with("one")).cloned().collect();
    assert_eq!(of_one, one.seen(), "each writer's rows in its order");
}

#[tokio::test]
async fn a_writer_that_joins_later_is_not_taken_for_seen() {
    let database = database().await;
    let old = process(&database, "old").await;
    old.writer.append(words(&["one"])).await.unwrap();
    let new = process(&database, "new").await;
    // The newcomer's row may get a smaller id than the old one's next, and be committed after it.
    old.writer.append(words(&["two"])).await.unwrap();
    let before = old.feed.position();
    let id = new.writer.append(words(&["three"])).await.unwrap()[0];
    assert!(!before.covers(new.session.writer(), id));
    assert!(old.feed.wait_for(&new.feed.position(), Duration::from_secs(10)).await);
    assert_eq!(old.seen(), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_replaced_process_can_not_commit_any_more() {
    let database = database().await;
    let old = process(&database, "main").await;
    // What a successor does once the name is free, while the old process still believes in itself.
    let client = database.get().await.unwrap();
    let new = myelin_storage::instances::register(&client, "main", Duration::from_secs(60)).await.unwrap();
    myelin_storage::streams::claim(&client, &[Words::NAME], new.writer, new.epoch).await.unwrap();
    let refused = old.writer.append(words(&["late"])).await;
    assert!(
        matches!(&refused, Err(WriteError::Storage(error)) if matches!(**error, StorageError::Fenced)),
        "{refused:?}"
    );
    tokio::time::timeout(Duration::from_secs(10), old.session.lost())
        .await
        .expect("it learns that it must stop");
    assert!(query(&client, "SELECT 1 FROM words", &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_process_of_one_name_is_refused_with_a_sentence() {
    let database = database().await;
    let _main = process(&database, "main").await;
    let second = Session::register((*database).clone(), "main", &[Words::NAME], Duration::ZERO).await;
    let Err(error @ LeaseError::NameTaken(_)) = second else { panic!("{second:?}") };
    assert!(error.to_string().contains("worker_name of its own"), "{error}");
}
