use ruma::{device_id, user_id};
use serde_json::json;

use super::*;
use crate::{TransactionWork, test_support::*};

fn to(targets: &[(&UserId, &str)], text: &str) -> SendToDevice {
    let mut messages: BTreeMap<OwnedUserId, BTreeMap<_, _>> = BTreeMap::new();
    for (user_id, target) in targets {
        let target = DeviceIdOrAllDevices::try_from(*target).unwrap();
        messages.entry((*user_id).to_owned()).or_default().insert(target, raw(&json!({ "text": text })));
    }
    SendToDevice { sender: bob_id().to_owned(), transaction: None, event_type: "m.test".to_owned(), messages }
}

fn as_transaction(mut request: SendToDevice, txn_id: &str) -> SendToDevice {
    request.transaction = Some((device_id!("SENDER").to_owned(), txn_id.into()));
    request
}

impl Services {
    async fn inbox(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        since: &Position,
        limit: u16,
    ) -> (Vec<String>, Position) {
        let upto = self.to_device.feed().position();
        let inbox = self.to_device.messages_for(user_id, device_id, since, &upto, limit).await.unwrap();
        let text = |message: &ToDeviceMessage| {
            let event = serde_json::to_value(message).unwrap();
            assert_eq!((event["type"].as_str(), event["sender"].as_str()), (Some("m.test"), Some("@b:x")));
            event["content"]["text"].as_str().unwrap().to_owned()
        };
        (inbox.messages.iter().map(text).collect(), inbox.position)
    }

    async fn stored(&self) -> i64 {
        self.to_device.0.delete_confirmed().await.unwrap();
        let client = self.database.get().await.unwrap();
        client.query_one("SELECT count(*) FROM to_device_messages", &[]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn a_message_reaches_the_devices_that_exist_and_no_others() {
    let services = services().await;
    for (user_id, device_id) in [(alice_id(), "PHONE"), (alice_id(), "TABLET"), (bob_id(), "PHONE")] {
        services.add_device(user_id, device_id.into()).await;
    }
    let start = Position::default();
    let send = async |request| services.to_device.send(request).await.unwrap();
    send(to(&[(alice_id(), "PHONE"), (alice_id(), "GONE"), (user_id!("@nobody:x"), "*")], "one")).await;
    send(to(&[(alice_id(), "*"), (bob_id(), "PHONE")], "two")).await;
    send(to(&[(alice_id(), "GONE")], "three")).await;
    assert_eq!(services.inbox(alice_id(), phone_id(), &start, 100).await.0, ["one", "two"]);
    assert_eq!(services.inbox(alice_id(), device_id!("TABLET"), &start, 100).await.0, ["two"]);
    assert_eq!(services.inbox(bob_id(), phone_id(), &start, 100).await.0, ["two"]);
    assert_eq!(services.stored().await, 4);
}

#[tokio::test]
async fn a_repeated_request_sends_nothing_even_at_the_same_moment() {
    let services = services().await;
    services.add_device(alice_id(), phone_id()).await;
    let requests =
        (0..10).map(|number| as_transaction(to(&[(alice_id(), "PHONE")], "x"), &(number % 2).to_string()));
    let sent = futures_util::future::join_all(requests.map(|request| services.to_device.send(request))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(services.stored().await, 2);
    let mut other_path = as_transaction(to(&[(alice_id(), "PHONE")], "x"), "0");
    other_path.event_type = "m.other".to_owned();
    services.to_device.send(other_path).await.unwrap();
    assert_eq!(services.stored().await, 3, "the type is part of the path");

    services.hands.advance(TRANSACTION_LIFE + Duration::from_secs(1));
    assert!(!services.to_device.prune_transactions().await.unwrap());
    services.to_device.send(as_transaction(to(&[(alice_id(), "PHONE")], "x"), "0")).await.unwrap();
    assert_eq!(services.stored().await, 4, "after a day nobody remembers");
}

#[tokio::test]
async fn messages_stay_until_the_device_comes_back_with_the_token_that_covers_them() {
    let services = services().await;
    services.add_device(alice_id(), phone_id()).await;
    let start = (*services.to_device.feed().position()).clone();
    assert!(services.inbox(alice_id(), phone_id(), &start, 2).await.0.is_empty());
    for text in ["1", "2", "3"] {
        services.to_device.send(to(&[(alice_id(), "PHONE")], text)).await.unwrap();
    }
    let (first, token) = services.inbox(alice_id(), phone_id(), &start, 2).await;
    assert_eq!(first, ["1", "2"]);
    // The answer got lost: the device asks again with its old token.
    services.to_device.delete_up_to(alice_id(), phone_id(), &start).await.unwrap();
    assert_eq!(services.inbox(alice_id(), phone_id(), &start, 2).await.0, first);

    services.to_device.delete_up_to(alice_id(), phone_id(), &token).await.unwrap();
    assert_eq!(services.stored().await, 1);
    let (rest, token) = services.inbox(alice_id(), phone_id(), &token, 2).await;
    assert_eq!(rest, ["3"]);
    services.to_device.delete_up_to(alice_id(), phone_id(), &token).await.unwrap();
    assert_eq!(services.stored().await, 0);
    assert_eq!(token, *services.to_device.feed().position());
}

#[tokio::test]
async fn a_device_does_not_get_what_was_for_a_former_one_of_its_name() {
    let services = services().await;
    services.add_device(alice_id(), phone_id()).await;
    let start = Position::default();
    assert!(services.inbox(alice_id(), phone_id(), &start, 100).await.0.is_empty());
    services.to_device.send(to(&[(alice_id(), "PHONE")], "old")).await.unwrap();
    let work: TransactionWork<()> = Box::new(|transaction| {
        Box::pin(async {
            myelin_storage::execute(transaction, "DELETE FROM devices", &[]).await?;
            Ok(())
        })
    });
    services.devices.remove_devices(alice_id(), vec![phone_id().to_owned()], work).await.unwrap();
    services.add_device(alice_id(), phone_id()).await;
    let (messages, token) = services.inbox(alice_id(), phone_id(), &start, 100).await;
    assert!(messages.is_empty(), "{messages:?}");
    services.to_device.send(to(&[(alice_id(), "PHONE")], "new")).await.unwrap();
    assert_eq!(services.inbox(alice_id(), phone_id(), &token, 100).await.0, ["new"]);
}

#[tokio::test]
async fn an_empty_inbox_is_known_without_the_database_until_something_comes() {
    let services = services().await;
    services.add_device(alice_id(), phone_id()).await;
    let now = (*services.to_device.feed().position()).clone();
    assert!(services.inbox(alice_id(), phone_id(), &now, 100).await.0.is_empty());
    let key = (alice_id().to_owned(), phone_id().to_owned());
    let known = services.to_device.0.inboxes.get(&key);
    assert!(known.lock().loaded && now.covers_all(&known.lock().newest));

    services.to_device.send(to(&[(alice_id(), "PHONE")], "news")).await.unwrap();
    assert!(!now.covers_all(&known.lock().newest), "the feed keeps it current");
    assert_eq!(services.inbox(alice_id(), phone_id(), &now, 100).await.0, ["news"]);
}

#[tokio::test]
async fn content_that_is_no_object_is_refused() {
    let services = services().await;
    let mut request = to(&[(alice_id(), "PHONE")], "x");
    let messages = request.messages.get_mut(alice_id()).unwrap();
    messages.insert(DeviceIdOrAllDevices::AllDevices, raw(&json!("text")));
    assert!(matches!(services.to_device.send(request).await, Err(ToDeviceError::Malformed)));
}
