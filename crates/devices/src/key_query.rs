//! Asking for the keys of users
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery)).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_replication::{Batch, Stamped};
use myelin_storage::{
    Result, StorageError,
    cross_signing::{self, CrossSigningKeyRow, KeySignatureRow},
    device_keys::{self, DeviceKeysRow},
};
use ruma::{
    OwnedDeviceId, OwnedUserId, UserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Map, Value, value::to_raw_value};

use crate::{
    DeviceListRow, Devices,
    key_cache::{UserCache, Weighed},
    stream,
};

/// Memory for the keys of users, and for the signatures that users made on others' keys, in bytes.
const KEYS_BYTES: u64 = 32 << 20;
const SIGNATURES_BYTES: u64 = 8 << 20;

/// The keys of users, with the signatures that the asker may see.
#[derive(Clone, Debug, Default)]
pub struct QueriedKeys {
    /// The identity keys of devices; users without any have an empty map.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    /// Master keys.
    pub master_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// The asker's own user-signing key.
    pub user_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
}

impl Devices {
    /// The keys of local users: of the listed devices, or of all where none is listed. `asker` is a local user, or
    /// `None` on behalf of another server.
    ///
    /// Changes by other processes are seen as far as the stream has brought them: whoever asks on behalf of somebody who may have been
    /// told of one has it brought first (`Horizon`).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn query_keys(
        &self,
        asker: Option<&UserId>,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<QueriedKeys> {
        let known = self.keys_of(wanted.keys()).await?;
        let signatures = match asker {
            Some(asker) => Some(self.signatures_by(asker).await?),
            None => None,
        };
        let mut keys = QueriedKeys::default();
        for (user_id, device_ids) in wanted {
            let devices = keys.device_keys.entry(user_id.clone()).or_default();
            let Some(known) = known.get(user_id) else { continue };
            let is_wanted = |id: &OwnedDeviceId| device_ids.is_empty() || device_ids.contains(id);
            devices.extend(
                known
                    .devices
                    .iter()
                    .filter(|(id, _)| is_wanted(id))
                    .map(|(id, key)| (id.clone(), key.clone())),
            );
            if let Some((public_key, master_key)) = &known.master_key {
                let signed = signatures.as_ref().and_then(|signatures| signatures.on(user_id, public_key));
                let master_key = match (signed, asker) {
                    (Some(signed), Some(asker)) => with_signatures(master_key, asker, signed)?,
                    _ => master_key.clone(),
                };
                keys.master_keys.insert(user_id.clone(), master_key);
            }
            if let Some(key) = &known.self_signing_key {
                keys.self_signing_keys.insert(user_id.clone(), key.clone());
            }
            if let Some(key) = known.user_signing_key.as_ref().filter(|_| asker == Some(&**user_id)) {
                keys.user_signing_keys.insert(user_id.clone(), key.clone());
            }
        }
        Ok(keys)
    }

    /// The keys of users as everybody sees them. Those who have none may be left out.
    async fn keys_of<'a>(
        &self,
        user_ids: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Result<HashMap<OwnedUserId, Arc<UserKeys>>> {
        let cache = &self.0.queried.keys;
        let (mut known, mut unknown) = (HashMap::new(), Vec::new());
        for user_id in user_ids {
            match cache.get(user_id) {
                Some(keys) => _ = known.insert(user_id.clone(), keys),
                None => unknown.push(user_id.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok(known);
        }
        let load = cache.load(unknown);
        let names = load.user_ids();
        let client = self.0.database.get().await?;
        let (devices, signing_keys, signatures) = futures_util::future::try_join3(
            device_keys::list_device_keys(&client, &names),
            cross_signing::list_cross_signing_keys(&client, &names),
            cross_signing::list_own_signatures(&client, &names),
        )
        .await?;
        drop(client);
        for (user_id, keys) in read_keys(load.users(), devices, signing_keys, signatures)? {
            let keys = Arc::new(keys);
            load.keep(&user_id, &keys);
            known.insert(user_id, keys);
        }
        Ok(known)
    }

    /// The signatures that a user made on the keys of others.
    async fn signatures_by(&self, signer: &UserId) -> Result<Arc<Signatures>> {
        let cache = &self.0.queried.signatures;
        let signer = signer.to_owned();
        if let Some(signatures) = cache.get(&signer) {
            return Ok(signatures);
        }
        let load = cache.load(vec![signer.clone()]);
        let client = self.0.database.get().await?;
        let rows = cross_signing::list_signatures_on_others(&client, signer.as_str()).await?;
        drop(client);
        let signatures = Arc::new(Signatures::new(rows));
        load.keep(&signer, &signatures);
        Ok(signatures)
    }
}

/// What was asked for lately.
pub(crate) struct QueryCache {
    keys: UserCache<UserKeys>,
    signatures: UserCache<Signatures>,
}

impl QueryCache {
    pub fn new() -> Self {
        Self { keys: UserCache::new(KEYS_BYTES), signatures: UserCache::new(SIGNATURES_BYTES) }
    }

    /// Forgets what a batch of the stream has changed.
    pub fn apply(&self, batch: &Batch<'_, DeviceListRow>) {
        for Stamped { row, .. } in batch.rows {
            match row {
                DeviceListRow::Changed { user_id } => self.keys.forget(user_id),
                DeviceListRow::Signed { user_id, by } => {
                    self.keys.forget(user_id);
                    self.signatures.forget(by);
                }
                DeviceListRow::KeyCounts { .. } => {}
            }
        }
    }
}

/// A user's keys with the signatures that everybody sees, which are the user's own
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security)).
#[derive(Default)]
struct UserKeys {
    devices: Vec<(OwnedDeviceId, Raw<DeviceKeys>)>,
    /// With the public key, which is its name.
    master_key: Option<(String, Raw<CrossSigningKey>)>,
    self_signing_key: Option<Raw<CrossSigningKey>>,
    /// Only for the user.
    user_signing_key: Option<Raw<CrossSigningKey>>,
}

impl Weighed for UserKeys {
    fn size_bytes(&self) -> u64 {
        fn size<T>(key: &Raw<T>) -> usize {
            key.json().get().len() + 64
        }
        let devices = self.devices.iter().map(|(_, key)| size(key)).sum::<usize>();
        let signing_keys = [self.master_key.as_ref().map(|(_, key)| key)]
            .into_iter()
            .chain([self.self_signing_key.as_ref(), self.user_signing_key.as_ref()])
            .flatten();
        (devices + signing_keys.map(size).sum::<usize>()) as u64
    }
}

/// The signatures that somebody made on the keys of others: by the owner and the public key, the name of the key that
/// signed and the signature.
#[derive(Default)]
struct Signatures(HashMap<(String, String), Vec<(String, String)>>);

impl Signatures {
    fn new(rows: Vec<KeySignatureRow>) -> Self {
        let mut signatures = Self::default();
        for row in rows {
            let of_key = signatures.0.entry((row.user_id, row.key_id)).or_default();
            of_key.push((row.signer_key_id, row.signature));
        }
        signatures
    }

    fn on(&self, user_id: &UserId, public_key: &str) -> Option<&[(String, String)]> {
        match self.0.is_empty() {
            true => None,
            false => self.0.get(&(user_id.to_string(), public_key.to_owned())).map(Vec::as_slice),
        }
    }
}

impl Weighed for Signatures {
    fn size_bytes(&self) -> u64 {
        let size = |((user_id, key_id), signatures): (&(String, String), &Vec<(String, String)>)| {
            let signatures = signatures.iter().map(|(key_id, signature)| key_id.len() + signature.len() + 48);
            user_id.len() + key_id.len() + signatures.sum::<usize>() + 96
        };
        self.0.iter().map(size).sum::<usize>() as u64
    }
}

/// Puts together what was read of users.
fn read_keys(
    user_ids: &[OwnedUserId],
    devices: Vec<DeviceKeysRow>,
    signing_keys: Vec<CrossSigningKeyRow>,
    signatures: Vec<KeySignatureRow>,
) -> Result<HashMap<OwnedUserId, UserKeys>> {
    let mut by_key: HashMap<(String, String), Vec<KeySignatureRow>> = HashMap::new();
    for row in signatures {
        by_key.entry((row.user_id.clone(), row.key_id.clone())).or_default().push(row);
    }
    let mut own = |user_id: &str, key_id: &str| {
        by_key.remove(&(user_id.to_owned(), key_id.to_owned())).unwrap_or_default()
    };
    let mut keys: HashMap<OwnedUserId, UserKeys> =
        user_ids.iter().map(|user_id| (user_id.clone(), UserKeys::default())).collect();
    for row in devices {
        let json = device_json(&row, own(&row.user_id, &row.device_id))?;
        let user = keys.entry(stream::user_id(&row.user_id)?).or_default();
        user.devices.push((row.device_id.into(), json));
    }
    for row in signing_keys {
        let json = signing_key_json(&row, own(&row.user_id, &row.public_key))?;
        let user = keys.entry(stream::user_id(&row.user_id)?).or_default();
        match row.usage.as_str() {
            "master" => user.master_key = Some((row.public_key, json)),
            "self_signing" => user.self_signing_key = Some(json),
            "user_signing" => user.user_signing_key = Some(json),
            _ => {}
        }
    }
    Ok(keys)
}

fn device_json(row: &DeviceKeysRow, later: Vec<KeySignatureRow>) -> Result<Raw<DeviceKeys>> {
    let mut object = parse(&row.key_json)?;
    keep_own_signatures(&mut object, &row.user_id, later);
    let mut unsigned = Map::new();
    if let Some(name) = &row.display_name {
        unsigned.insert("device_display_name".to_owned(), name.as_str().into());
    }
    object.insert("unsigned".to_owned(), unsigned.into());
    serialize(&object)
}

fn signing_key_json(row: &CrossSigningKeyRow, later: Vec<KeySignatureRow>) -> Result<Raw<CrossSigningKey>> {
    let mut object = parse(&row.key_json)?;
    keep_own_signatures(&mut object, &row.user_id, later);
    serialize(&object)
}

/// Takes out the signatures of others, which are for them alone, and merges in the user's own that came after the
/// upload.
fn keep_own_signatures(object: &mut Map<String, Value>, user_id: &str, later: Vec<KeySignatureRow>) {
    let own = object.remove("signatures").and_then(|mut all| all.get_mut(user_id).map(Value::take));
    let mut own = match own {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    own.extend(later.into_iter().map(|row| (row.signer_key_id, row.signature.into())));
    if !own.is_empty() {
        object.insert("signatures".to_owned(), Map::from_iter([(user_id.to_owned(), own.into())]).into());
    }
}

/// A key with signatures that `signer` made on it.
fn with_signatures(
    key: &Raw<CrossSigningKey>,
    signer: &UserId,
    signed: &[(String, String)],
) -> Result<Raw<CrossSigningKey>> {
    let mut object = parse(key.json().get())?;
    let signatures = object.entry("signatures").or_insert_with(|| Map::new().into());
    if let Value::Object(signatures) = signatures {
        let signed = signed.iter().map(|(key_id, signature)| (key_id.clone(), signature.as_str().into()));
        signatures.insert(signer.to_string(), Map::from_iter(signed).into());
    }
    serialize(&object)
}

fn parse(json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|error| StorageError::Inconsistent(format!("a stored key: {error}")))
}

fn serialize<T>(object: &Map<String, Value>) -> Result<Raw<T>> {
    let json = to_raw_value(object).map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    Ok(Raw::from_json(json))
}

#[cfg(test)]
mod tests {
    use myelin_replication::Feed;
    use ruma::{device_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::{DeviceListStream, KeysUpload, SigningKeysUpload, TransactionWork, test_support::*};

    #[tokio::test]
    async fn devices_are_found_by_user_and_by_id_with_their_names() {
        let services = services().await;
        let alice = user_id!("@a:x");
        for id in ["ONE", "TWO"] {
            let device_id = <&ruma::DeviceId>::from(id);
            services.add_device(alice, device_id).await;
            let keys = device_keys(alice, device_id, &TestKey::new(id));
            let upload = KeysUpload { device_keys: Some(typed(&keys)), ..KeysUpload::default() };
            services.devices.upload_keys(alice, device_id, upload).await.unwrap();
        }
        let found = async |ids: &[&str]| {
            let ids = ids.iter().map(|id| OwnedDeviceId::from(*id)).collect();
            let wanted = [(alice.to_owned(), ids), (user_id!("@nobody:x").to_owned(), vec![])].into();
            services.devices.query_keys(Some(user_id!("@b:x")), &wanted).await.unwrap().device_keys
        };
        assert_eq!(found(&[]).await[alice].len(), 2);
        assert_eq!(found(&["TWO", "THREE"]).await[alice].keys().collect::<Vec<_>>(), [device_id!("TWO")]);
        assert!(found(&[]).await[user_id!("@nobody:x")].is_empty());
        let keys = found(&["ONE"]).await[alice][device_id!("ONE")].deserialize().unwrap();
        assert_eq!(keys.unsigned.device_display_name.as_deref(), Some("A phone"));
        assert_eq!(keys.keys.len(), 2);
    }

    #[test]
    fn signatures_of_others_are_taken_out_and_the_askers_merged_in() {
        let row = |signer: &str| KeySignatureRow {
            user_id: "@a:x".to_owned(),
            key_id: "MASTER".to_owned(),
            signer_user_id: signer.to_owned(),
            signer_key_id: "ed25519:K".to_owned(),
            signature: "later".to_owned(),
        };
        let key = |signatures: &str| CrossSigningKeyRow {
            user_id: "@a:x".to_owned(),
            usage: "master".to_owned(),
            public_key: "MASTER".to_owned(),
            key_json: format!(r#"{{"signatures":{signatures}}}"#),
        };
        let content = |key: &Raw<CrossSigningKey>| key.deserialize_as_unchecked::<Value>().unwrap();
        let first = r#"{"@a:x":{"ed25519:D":"first"},"@other:x":{"ed25519:O":"secret"}}"#;
        let public = signing_key_json(&key(first), vec![row("@a:x")]).unwrap();
        let own = json!({ "ed25519:D": "first", "ed25519:K": "later" });
        assert_eq!(content(&public), json!({ "signatures": { "@a:x": own } }));

        let signatures = Signatures::new(vec![row("@me:x")]);
        assert!(signatures.on(user_id!("@a:x"), "OTHER").is_none());
        let signed = signatures.on(user_id!("@a:x"), "MASTER").unwrap();
        let seen = with_signatures(&public, user_id!("@me:x"), signed).unwrap();
        let expected = json!({ "signatures": { "@a:x": own, "@me:x": { "ed25519:K": "later" } } });
        assert_eq!(content(&seen), expected);

        for none in ["{}", "[]", r#"{"@other:x":{"ed25519:O":"secret"}}"#] {
            let public = signing_key_json(&key(none), vec![]).unwrap();
            assert_eq!(content(&public), json!({}), "{none}");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_is_forgotten_when_it_changes() {
        let services = services().await;
        let (alice, bob) = (alice_id(), bob_id());
        let wanted = [(alice.to_owned(), vec![])].into();
        let query = async |asker| services.devices.query_keys(Some(asker), &wanted).await.unwrap();
        assert!(query(bob).await.device_keys[alice].is_empty());

        services.add_device(alice, phone_id()).await;
        let keys = device_keys(alice, phone_id(), &TestKey::new("PHONE"));
        let upload = KeysUpload { device_keys: Some(typed(&keys)), ..KeysUpload::default() };
        services.devices.upload_keys(alice, phone_id(), upload).await.unwrap();
        assert_eq!(query(bob).await.device_keys[alice].len(), 1);

        let master = TestKey::cross_signing();
        let master_key = master.as_signing_key("@a:x", "master");
        let upload = SigningKeysUpload { master_key: Some(typed(&master_key)), ..Default::default() };
        services.devices.upload_signing_keys(alice, &upload, false).await.unwrap();
        assert!(query(bob).await.master_keys.contains_key(alice));

        // Bob signs Alice's master key, which only he sees.
        let (bobs_master, user_signing) = (TestKey::cross_signing(), TestKey::cross_signing());
        let signing_key = user_signing.as_signing_key("@b:x", "user_signing");
        let upload = SigningKeysUpload {
            master_key: Some(typed(&bobs_master.as_signing_key("@b:x", "master"))),
            user_signing_key: Some(typed(&bobs_master.sign("@b:x", signing_key))),
            ..Default::default()
        };
        services.devices.upload_signing_keys(bob, &upload, false).await.unwrap();
        let signed = raw(&user_signing.sign("@b:x", master_key));
        let owner = alice.to_owned();
        let public = master.public();
        let failures =
            services.devices.upload_signatures(bob, [(&owner, [(public.as_str(), &*signed)])]).await;
        assert!(failures.unwrap().is_empty());
        for (asker, sees) in [(bob, true), (alice, false), (user_id!("@c:x"), false), (bob, true)] {
            let json = query(asker).await.master_keys[alice].deserialize_as_unchecked::<Value>().unwrap();
            assert_eq!(json["signatures"].get("@b:x").is_some(), sees, "{asker}: {json}");
        }

        let work: TransactionWork<()> = Box::new(|_| Box::pin(async { Ok(()) }));
        services.devices.remove_devices(alice, vec![phone_id().to_owned()], work).await.unwrap();
        assert!(query(bob).await.device_keys[alice].is_empty());
    }

    #[tokio::test]
    async fn a_change_that_another_process_wrote_is_seen_once_the_stream_has_brought_it() {
        let services = services().await;
        let feed = Feed::<DeviceListStream>::open((*services.database).clone()).await.unwrap();
        let other = Devices::new((*services.database).clone(), feed, services.devices.0.writer.clone());
        let wanted = [(alice_id().to_owned(), vec![])].into();
        let found = async || other.query_keys(None, &wanted).await.unwrap().device_keys[alice_id()].len();
        assert_eq!(found().await, 0);
        services.add_device(alice_id(), phone_id()).await;
        let keys = device_keys(alice_id(), phone_id(), &TestKey::new("PHONE"));
        let upload = KeysUpload { device_keys: Some(typed(&keys)), ..KeysUpload::default() };
        services.devices.upload_keys(alice_id(), phone_id(), upload).await.unwrap();
        other.feed().see_committed().await.unwrap();
        assert_eq!(found().await, 1);
    }
}
