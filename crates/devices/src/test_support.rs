//! Keys that sign, and services on a fresh database, for the tests of this crate.

use std::time::Duration;

use myelin_leases::Session;
use myelin_replication::{Feed, Stream as _, StreamWriter};
use myelin_testing::MigratedDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{
    CanonicalJsonValue, DeviceId, RoomId, UserId, device_id, room_id,
    serde::{Base64, Raw},
    signatures::{Ed25519KeyPair, KeyPair as _, to_canonical_json_string_for_signing},
    user_id,
};
use serde_json::{Value, json, value::RawValue};

use crate::{DeviceListStream, Devices, ToDevice, ToDeviceStream};

pub(crate) fn alice_id() -> &'static UserId {
    user_id!("@a:x")
}

pub(crate) fn bob_id() -> &'static UserId {
    user_id!("@b:x")
}

pub(crate) fn phone_id() -> &'static DeviceId {
    device_id!("PHONE")
}

pub(crate) fn the_room_id() -> &'static RoomId {
    room_id!("!r:x")
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

pub(crate) fn typed<T>(value: &Value) -> Raw<T> {
    Raw::from_json(raw(value))
}

/// An ed25519 key with the name that its signatures have: a device id, or the public key itself.
pub(crate) struct TestKey {
    pair: Ed25519KeyPair,
    name: String,
}

impl TestKey {
    pub fn new(name: &str) -> Self {
        let der = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&der, "1".to_owned()).unwrap();
        Self { pair, name: name.to_owned() }
    }

    /// A cross-signing key, whose name is its public key.
    pub fn cross_signing() -> Self {
        let mut key = Self::new("");
        key.name = key.public();
        key
    }

    pub fn public(&self) -> String {
        Base64::<ruma::serde::base64::Standard, _>::new(self.pair.public_key().to_vec()).encode()
    }

    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.name)
    }

    pub fn sign(&self, user_id: &str, mut value: Value) -> Value {
        let CanonicalJsonValue::Object(object) = CanonicalJsonValue::try_from(value.clone()).unwrap() else {
            panic!("only objects are signed");
        };
        let signed = to_canonical_json_string_for_signing(&object).unwrap();
        value["signatures"][user_id][self.key_id()] = self.pair.sign(signed.as_bytes()).base64().into();
        value
    }

    /// The public part as a cross-signing key.
    pub fn as_signing_key(&self, user_id: &str, usage: &str) -> Value {
        json!({ "user_id": user_id, "usage": [usage], "keys": { (self.key_id()): self.public() } })
    }
}

/// The identity keys of a device, signed by its own key.
pub(crate) fn device_keys(user_id: &UserId, device_id: &DeviceId, key: &TestKey) -> Value {
    key.sign(
        user_id.as_str(),
        json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("ed25519:{device_id}"): key.public(),
                format!("curve25519:{device_id}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI",
            },
        }),
    )
}

pub(crate) struct Services {
    pub devices: Devices,
    pub to_device: ToDevice,
    pub hands: ManualClock,
    pub database: MigratedDatabase,
}

pub(crate) async fn services() -> Services {
    let database = MigratedDatabase::create().await;
    let streams = [DeviceListStream::NAME, ToDeviceStream::NAME];
    let session = Session::register((*database).clone(), "main", &streams, Duration::ZERO).await.unwrap();
    let hands = ManualClock::starting_at(1_000_000_000);
    let feed = Feed::<DeviceListStream>::open((*database).clone()).await.unwrap();
    let writer = StreamWriter::start((*database).clone(), session.clone(), feed.clone());
    let devices = Devices::new((*database).clone(), feed, writer);
    let feed = Feed::<ToDeviceStream>::open((*database).clone()).await.unwrap();
    let writer = StreamWriter::start((*database).clone(), session, feed.clone());
    let to_device = ToDevice::new((*database).clone(), Clock::Manual(hands.clone()), feed, writer);
    Services { devices, to_device, hands, database }
}

impl Services {
    /// Makes a device, as a log-in does.
    pub async fn add_device(&self, user_id: &UserId, device_id: &DeviceId) {
        const SQL: &str =
            "INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ($1, $2, 'A phone', 0)
            ON CONFLICT DO NOTHING";
        let client = self.database.get().await.unwrap();
        client.execute(SQL, &[&user_id.as_str(), &device_id.as_str()]).await.unwrap();
    }
}
