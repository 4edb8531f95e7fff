use ruma::{UserId, owned_event_id, owned_room_id, owned_user_id, user_id};

use super::*;
use crate::test_streams::TestStreams;

async fn receipts(streams: &TestStreams) -> Receipts {
    let (feed, writer) = streams.stream().await;
    let client = streams.database.get().await.unwrap();
    client
        .batch_execute(
            "INSERT INTO rooms (room_nid, room_id, room_version) VALUES (1, '!one:a', '11'), (2, '!two:a', '11')",
        )
        .await
        .unwrap();
    Receipts::new(streams.database.clone(), feed, writer)
}

fn receipt(kind: ReceiptKind, thread: ReceiptThread, pos: i64) -> NewReceipt {
    ReceiptRow {
        room_nid: 1,
        room_id: owned_room_id!("!one:a"),
        user_id: owned_user_id!("@amy:a"),
        kind,
        thread,
        event_id: EventId::parse(format!("$e{pos}")).unwrap(),
        event_pos: Some(pos),
        ts: 1000,
    }
}

#[tokio::test]
async fn marks_of_one_kind_and_thread_only_go_forward() {
    let streams = TestStreams::start(&["receipts"]).await;
    let receipts = receipts(&streams).await;
    let thread = || ReceiptThread::Thread(owned_event_id!("$root"));
    for (kind, thread, pos, is_new) in [
        (ReceiptKind::Read, ReceiptThread::Unthreaded, 5, true),
        (ReceiptKind::Read, ReceiptThread::Unthreaded, 4, false),
        (ReceiptKind::Read, ReceiptThread::Unthreaded, 5, false),
        (ReceiptKind::Read, ReceiptThread::Unthreaded, 7, true),
        (ReceiptKind::ReadPrivate, ReceiptThread::Unthreaded, 2, true),
        (ReceiptKind::Read, ReceiptThread::Main, 3, true),
        (ReceiptKind::Read, thread(), 1, true),
        (ReceiptKind::Read, thread(), 0, false),
    ] {
        let new = receipts.record(receipt(kind, thread.clone(), pos)).await.unwrap();
        assert_eq!(new, is_new, "{kind:?} {thread:?} {pos}");
    }
    // Another process remembers nothing and must come to the same verdict.
    let (feed, writer) = streams.stream().await;
    let other = Receipts::new(streams.database.clone(), feed, writer);
    assert!(!other.record(receipt(ReceiptKind::Read, ReceiptThread::Unthreaded, 6)).await.unwrap());
}

#[tokio::test]
async fn readers_who_missed_the_notices_get_the_latest_of_each_mark() {
    let streams = TestStreams::start(&["receipts"]).await;
    let late: Feed<ReceiptStream> = Feed::open(streams.database.clone()).await.unwrap();
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = seen.clone();
    late.subscribe(move |batch| log.lock().extend(batch.rows.iter().map(|stamped| stamped.row.clone())));

    let receipts = receipts(&streams).await;
    for pos in [1, 2, 3] {
        receipts.record(receipt(ReceiptKind::Read, ReceiptThread::Unthreaded, pos)).await.unwrap();
    }
    receipts.record(receipt(ReceiptKind::Read, ReceiptThread::Main, 9)).await.unwrap();
    late.catch_up().await.unwrap();
    let expected = [
        receipt(ReceiptKind::Read, ReceiptThread::Unthreaded, 3),
        receipt(ReceiptKind::Read, ReceiptThread::Main, 9),
    ];
    assert_eq!(*seen.lock(), expected);
    assert!(late.position().covers_all(&receipts.feed().position()));
}

#[tokio::test]
async fn private_receipts_are_read_for_their_owner_only() {
    let streams = TestStreams::start(&["receipts"]).await;
    let receipts = receipts(&streams).await;
    receipts.record(receipt(ReceiptKind::ReadPrivate, ReceiptThread::Unthreaded, 5)).await.unwrap();
    receipts.record(receipt(ReceiptKind::Read, ReceiptThread::Unthreaded, 4)).await.unwrap();
    let client = streams.database.get().await.unwrap();
    let read = async |user: &UserId, rooms: &[i64]| {
        let start = Position::default();
        let rows = table::receipts_of_rooms(&client, rooms, user.as_str(), &start).await.unwrap();
        rows.into_iter().map(|row| row.receipt_type).collect::<Vec<_>>()
    };
    assert_eq!(read(user_id!("@amy:a"), &[1, 2]).await.len(), 2);
    assert_eq!(read(user_id!("@bob:a"), &[1]).await, [0]);
    assert!(read(user_id!("@amy:a"), &[2]).await.is_empty());
    assert_eq!(table::receipts_of_user(&client, &[1, 2], "@amy:a").await.unwrap().len(), 2);
}
