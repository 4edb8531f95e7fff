//! What keys cost, in CPU time of this process and in time. Ignored, since it says something only in release:
//!
//! ```text
//! cargo test --release -p myelin-devices speed -- --ignored --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "it is all that a measurement is for")]

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, Instant},
};

use ruma::{OwnedUserId, UserId};
use serde_json::json;

use crate::{KeysUpload, SigningKeysUpload, WantedKeys, test_support::*};

const USERS: usize = 20;
const DEVICES: usize = 3;

/// The CPU time of this thread, which all tasks of a test share.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

async fn measured<T>(what: &str, times: u32, work: impl Future<Output = T>) -> T {
    let (before, start) = (cpu_time(), Instant::now());
    let outcome = work.await;
    println!("{what}: {:?} CPU, {:?} each", (cpu_time() - before) / times, start.elapsed() / times);
    outcome
}

fn one_time_keys(user_id: &UserId, key: &TestKey, from: usize) -> KeysUpload {
    let one_time_keys = (from..from + 10).map(|number| {
        let id = format!("signed_curve25519:{number:06}").try_into().unwrap();
        let value = json!({ "key": "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs" });
        (id, typed(&key.sign(user_id.as_str(), value)))
    });
    KeysUpload { one_time_keys: one_time_keys.collect(), ..KeysUpload::default() }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_uploads_claims_and_queries() {
    let services = services().await;
    let mut users: BTreeMap<OwnedUserId, Vec<_>> = BTreeMap::new();
    let mut uploads = Vec::new();
    for number in 0..USERS {
        let user_id: OwnedUserId = format!("@user{number}:example.org").try_into().unwrap();
        let master = TestKey::cross_signing();
        for device in 0..DEVICES {
            let device_id: ruma::OwnedDeviceId = format!("DEVICE{device}").into();
            services.add_device(&user_id, &device_id).await;
            let key = TestKey::new(device_id.as_str());
            let identity = KeysUpload {
                device_keys: Some(typed(&device_keys(&user_id, &device_id, &key))),
                ..KeysUpload::default()
            };
            services.devices.upload_keys(&user_id, &device_id, identity).await.unwrap();
            uploads.extend((0..5).map(|round| {
                (user_id.clone(), device_id.clone(), one_time_keys(&user_id, &key, 10 * round))
            }));
        }
        let self_signing = TestKey::cross_signing().as_signing_key(user_id.as_str(), "self_signing");
        let signing_keys = SigningKeysUpload {
            master_key: Some(typed(&master.as_signing_key(user_id.as_str(), "master"))),
            self_signing_key: Some(typed(&master.sign(user_id.as_str(), self_signing))),
            user_signing_key: None,
        };
        services.devices.upload_signing_keys(&user_id, &signing_keys, false).await.unwrap();
        users.insert(user_id, Vec::new());
    }
    let times = u32::try_from(uploads.len()).unwrap();
    measured("upload of 10 one-time keys, one by one", times / 2, async {
        for (user_id, device_id, upload) in uploads.drain(..uploads.len() / 2) {
            services.devices.upload_keys(&user_id, &device_id, upload).await.unwrap();
        }
    })
    .await;
    measured("upload of 10 one-time keys, all at once", times / 2, async {
        let uploads = uploads.into_iter().map(|(user_id, device_id, upload)| {
            let devices = services.devices.clone();
            async move { devices.upload_keys(&user_id, &device_id, upload).await.unwrap() }
        });
        futures_util::future::join_all(uploads).await
    })
    .await;
    let wanted: WantedKeys = users
        .keys()
        .map(|user_id| (user_id.clone(), [("DEVICE0".into(), "signed_curve25519".into())].into()))
        .collect();
    measured("claim of 20 keys", 20, async {
        for _ in 0..20 {
            services.devices.claim_keys(&wanted).await.unwrap();
        }
    })
    .await;
    for what in ["cold", "warm", "warm"] {
        let times = if what == "cold" { 1 } else { 500 };
        measured(&format!("query of 20 users, {what}"), times, async {
            for _ in 0..times {
                let keys = services.devices.query_keys(Some(alice_id()), &users).await.unwrap();
                assert_eq!(keys.device_keys.len(), USERS);
            }
        })
        .await;
    }
}
