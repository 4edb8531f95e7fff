//! What holds whatever clients do, against models that are too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use myelin_types::Position;
use proptest::{collection::vec, prelude::*, sample::subsequence, test_runner::TestRunner};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, encryption::OneTimeKey, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde_json::json;

use crate::{KeysUpload, SendToDevice, WantedKeys, test_support::*};

/// Checks many cases on one database, each with a device of its own.
fn for_any<S: Strategy>(
    strategy: &S,
    check: impl AsyncFn(&Services, OwnedDeviceId, S::Value) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let services = runtime.block_on(services());
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        runtime.block_on(async {
            let device_id = ruma::DeviceId::new();
            services.add_device(alice_id(), &device_id).await;
            check(&services, device_id, value).await
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[derive(Clone, Debug)]
enum KeyStep {
    Upload(Vec<u8>),
    Fallback(u8),
    /// Of so many at once.
    Claim(usize),
    /// The device lost its store and begins anew.
    NewIdentity,
}

fn key_step() -> impl Strategy<Value = KeyStep> {
    prop_oneof![
        subsequence((0..8).collect::<Vec<u8>>(), 0..6).prop_map(KeyStep::Upload),
        (0..3u8).prop_map(KeyStep::Fallback),
        (1..4usize).prop_map(KeyStep::Claim),
        Just(KeyStep::NewIdentity),
    ]
}

/// The keys of a device as the specification describes them.
#[derive(Default)]
struct KeyModel {
    /// The uploads, oldest first: within one there is no order.
    batches: VecDeque<BTreeSet<String>>,
    fallback: Option<(String, bool)>,
}

impl KeyModel {
    fn upload(&mut self, ids: &BTreeSet<String>) {
        let known = |id: &String| self.batches.iter().any(|batch| batch.contains(id));
        let fresh = ids.iter().filter(|id| !known(id)).cloned().collect();
        self.batches.push_back(fresh);
    }

    fn set_fallback(&mut self, id: String) {
        let used = self.fallback.as_ref().is_some_and(|(known, used)| *known == id && *used);
        self.fallback = Some((id, used));
    }

    /// Whether this key may be given out now; it is, then.
    fn claim(&mut self, given: Option<&str>) -> bool {
        self.batches.retain(|batch| !batch.is_empty());
        match (self.batches.front_mut(), &mut self.fallback, given) {
            (Some(oldest), _, Some(given)) => oldest.remove(given),
            (None, Some((id, used)), Some(given)) => {
                *used = true;
                id == given
            }
            (None, None, None) => true,
            _ => false,
        }
    }

    fn counts(&self) -> (u64, bool) {
        let left = self.batches.iter().map(BTreeSet::len).sum::<usize>() as u64;
        (left, self.fallback.as_ref().is_some_and(|(_, used)| !used))
    }
}

fn keys(ids: impl IntoIterator<Item = String>) -> BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>> {
    let key =
        |id: String| (format!("signed_curve25519:{id}").try_into().unwrap(), typed(&json!({ "key": id })));
    ids.into_iter().map(key).collect()
}

async fn take(services: &Services, device_id: &OwnedDeviceId) -> Option<String> {
    let device = [(device_id.clone(), OneTimeKeyAlgorithm::SignedCurve25519)].into();
    let wanted: WantedKeys = [(alice_id().to_owned(), device)].into();
    let claimed = services.devices.claim_keys(&wanted).await.unwrap();
    let id = claimed.into_values().flatten().flat_map(|(_, keys)| keys.into_keys()).next()?;
    Some(id.key_name().to_string())
}

async fn check_keys(
    services: &Services,
    device_id: OwnedDeviceId,
    steps: Vec<KeyStep>,
) -> Result<(), TestCaseError> {
    let mut model = KeyModel::default();
    let upload = async |upload| services.devices.upload_keys(alice_id(), &device_id, upload).await.unwrap();
    for step in steps {
        match step {
            KeyStep::Upload(ids) => {
                let ids: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
                model.upload(&ids);
                upload(KeysUpload { one_time_keys: keys(ids), ..KeysUpload::default() }).await;
            }
            KeyStep::Fallback(id) => {
                model.set_fallback(format!("F{id}"));
                upload(KeysUpload { fallback_keys: keys([format!("F{id}")]), ..KeysUpload::default() }).await;
            }
            KeyStep::Claim(times) => {
                let claims = (0..times).map(|_| take(services, &device_id));
                // At once: the writer takes them in the order in which they were asked for.
                for given in futures_util::future::join_all(claims).await {
                    prop_assert!(model.claim(given.as_deref()), "{given:?}");
                }
            }
            KeyStep::NewIdentity => {
                let had_identity = services
                    .devices
                    .query_keys(None, &[(alice_id().to_owned(), vec![device_id.clone()])].into())
                    .await
                    .unwrap()
                    .device_keys[alice_id()]
                .contains_key(&device_id);
                if had_identity {
                    model = KeyModel::default();
                }
                let keys = device_keys(alice_id(), &device_id, &TestKey::new(device_id.as_str()));
                upload(KeysUpload { device_keys: Some(typed(&keys)), ..KeysUpload::default() }).await;
            }
        }
        let counts = services.devices.key_counts(alice_id(), &device_id).await.unwrap();
        let left = counts.one_time.get("signed_curve25519").copied().unwrap_or_default();
        prop_assert_eq!((left, !counts.unused_fallback.is_empty()), model.counts());
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum InboxStep {
    Send(u8),
    /// A sync of which the answer arrives, or is lost.
    Sync {
        limit: u16,
        arrives: bool,
    },
}

fn inbox_step() -> impl Strategy<Value = InboxStep> {
    prop_oneof![
        (1..5u8).prop_map(InboxStep::Send),
        (1..4u16, any::<bool>()).prop_map(|(limit, arrives)| InboxStep::Sync { limit, arrives }),
    ]
}

async fn check_inbox(
    services: &Services,
    device_id: OwnedDeviceId,
    steps: Vec<InboxStep>,
) -> Result<(), TestCaseError> {
    let to_device = &services.to_device;
    let mut token: Position = (*to_device.feed().position()).clone();
    let (mut sent, mut received) = (0u32, Vec::new());
    let rest = [InboxStep::Sync { limit: 1000, arrives: true }, InboxStep::Sync { limit: 1, arrives: true }];
    for step in steps.into_iter().chain(rest) {
        match step {
            InboxStep::Send(times) => {
                for _ in 0..times {
                    let target = DeviceIdOrAllDevices::DeviceId(device_id.clone());
                    let content = raw(&json!({ "n": sent }));
                    let request = SendToDevice {
                        sender: bob_id().to_owned(),
                        transaction: None,
                        event_type: "m.test".to_owned(),
                        messages: [(alice_id().to_owned(), [(target, content)].into())].into(),
                    };
                    to_device.send(request).await.unwrap();
                    sent += 1;
                }
            }
            InboxStep::Sync { limit, arrives } => {
                to_device.delete_up_to(alice_id(), &device_id, &token).await.unwrap();
                let upto = to_device.feed().position();
                let inbox =
                    to_device.messages_for(alice_id(), &device_id, &token, &upto, limit).await.unwrap();
                prop_assert!(inbox.messages.len() <= usize::from(limit));
                if arrives {
                    received
                        .extend(inbox.messages.into_iter().map(|message| message.content.get().to_owned()));
                    token = inbox.position;
                }
            }
        }
    }
    let expected: Vec<String> = (0..sent).map(|number| json!({ "n": number }).to_string()).collect();
    prop_assert_eq!(received, expected);
    Ok(())
}

#[test]
fn keys_are_given_out_as_the_model_says_and_counted_right() {
    for_any(&vec(key_step(), 1..20), check_keys);
}

#[test]
fn a_device_that_uses_its_tokens_gets_every_message_once_and_in_order() {
    for_any(&vec(inbox_step(), 1..20), check_inbox);
}
