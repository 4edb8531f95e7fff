//! Uploading a device's keys
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload)).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use myelin_storage::{
    StorageError, Transaction, device_keys,
    one_time_keys::{self, DeviceName, KeyName, NewKeys, OneTimeKeyRow},
};
use ruma::{
    DeviceId, OneTimeKeyId, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, UserId,
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::{Value, value::RawValue};

use crate::{DeviceListRow, Devices, KeyCounts, KeyError, signed_json::SignedObject};

/// One-time keys that a device may have of all algorithms together. Clients keep fifty or a hundred.
const MAX_ONE_TIME_KEYS: u64 = 5000;
/// The algorithm of all clients of today: they want to be told even that there is no key left of it.
const USUAL_ALGORITHM: &str = "signed_curve25519";

/// What a device uploads.
#[derive(Clone, Debug, Default)]
pub struct KeysUpload {
    /// Its identity keys.
    pub device_keys: Option<Raw<DeviceKeys>>,
    /// More one-time keys.
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    /// Fallback keys, one per algorithm.
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// An upload after everything was checked that can be checked without the database.
pub(crate) struct CheckedUpload {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    device_keys: Option<SignedObject>,
    one_time_keys: Vec<OneTimeKeyRow>,
    fallback_keys: Vec<OneTimeKeyRow>,
}

impl Devices {
    /// Stores what a device uploads and gives the counts of its keys after that. What it has already is left alone:
    /// an upload can be repeated.
    ///
    /// Identity keys that differ from those of before are a new identity: the one-time keys of the former one go. The
    /// server can't tell a client that lost its store from somebody who took its token; that is for clients to show.
    ///
    /// # Errors
    /// If the keys are another device's, malformed, too many, or a one-time key takes the id of another.
    pub async fn upload_keys(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        upload: KeysUpload,
    ) -> Result<Arc<KeyCounts>, KeyError> {
        let checked = CheckedUpload {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            device_keys: upload
                .device_keys
                .as_ref()
                .map(|keys| check_device_keys(user_id, device_id, keys.json()))
                .transpose()?,
            one_time_keys: one_time_key_rows(&upload.one_time_keys)?,
            fallback_keys: one_time_key_rows(&upload.fallback_keys)?,
        };
        if checked.is_empty() {
            return Ok(self.key_counts(user_id, device_id).await?);
        }
        self.0.uploads.serve(Arc::new(checked)).await?
    }
}

impl CheckedUpload {
    fn new_keys(&self) -> NewKeys<'_> {
        NewKeys {
            user_id: self.user_id.as_str(),
            device_id: self.device_id.as_str(),
            keys: &self.one_time_keys,
        }
    }

    fn device(&self) -> DeviceName {
        (self.user_id.to_string(), self.device_id.to_string())
    }

    fn is_empty(&self) -> bool {
        self.device_keys.is_none() && self.one_time_keys.is_empty() && self.fallback_keys.is_empty()
    }
}

fn check_device_keys(
    user_id: &UserId,
    device_id: &DeviceId,
    json: &RawValue,
) -> Result<SignedObject, KeyError> {
    let keys = SignedObject::parse(json)
        .filter(|keys| keys.keys().is_some())
        .ok_or_else(|| KeyError::Malformed("device_keys is not an object of keys".to_owned()))?;
    match (keys.text_at("user_id"), keys.text_at("device_id")) {
        (Some(user), Some(device)) if user == user_id && device == device_id => Ok(keys),
        (Some(_), Some(_)) => Err(KeyError::NotYours),
        _ => Err(KeyError::Malformed("device_keys lacks user_id or device_id".to_owned())),
    }
}

fn one_time_key_rows(
    keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
) -> Result<Vec<OneTimeKeyRow>, KeyError> {
    let row = |(id, key): (&OwnedOneTimeKeyId, &Raw<OneTimeKey>)| {
        let json = key.json().get();
        // Keys are objects, or texts in old algorithms.
        if !json.starts_with(['{', '"']) {
            return Err(KeyError::Malformed(format!("the key {id} is neither an object nor a string")));
        }
        Ok(OneTimeKeyRow {
            algorithm: id.algorithm().to_string(),
            key_id: id.key_name().to_string(),
            key_json: json.to_owned(),
        })
    };
    keys.iter().map(row).collect()
}

/// What became of an upload.
pub(crate) type Stored = Result<Arc<KeyCounts>, KeyError>;

/// Stores uploads, of each device one after the other.
pub(crate) async fn store(
    transaction: &Transaction<'_>,
    uploads: Vec<Arc<CheckedUpload>>,
) -> Result<(Vec<Stored>, Vec<DeviceListRow>), StorageError> {
    let mut outcomes = BTreeMap::new();
    let mut rows = Vec::new();
    let mut left: Vec<(usize, &CheckedUpload)> = uploads.iter().map(|upload| &**upload).enumerate().collect();
    while !left.is_empty() {
        let mut devices = BTreeSet::new();
        let (now, later) = left.into_iter().partition(|(_, upload)| devices.insert(upload.device()));
        store_each(transaction, now, &devices, &mut outcomes, &mut rows).await?;
        left = later;
    }
    Ok((outcomes.into_values().collect(), rows))
}

/// Stores one upload of each of several devices. Every check of an upload comes before its first write, because what is written by
/// then is committed.
async fn store_each(
    transaction: &Transaction<'_>,
    uploads: Vec<(usize, &CheckedUpload)>,
    devices: &BTreeSet<DeviceName>,
    outcomes: &mut BTreeMap<usize, Stored>,
    rows: &mut Vec<DeviceListRow>,
) -> Result<(), StorageError> {
    let mut counts = lock(transaction, devices).await?;
    let mut begun = Vec::with_capacity(uploads.len());
    for (index, upload) in uploads {
        match begin(transaction, upload, counts.remove(&upload.device())).await? {
            Ok(upload) => begun.push((index, upload)),
            Err(error) => _ = outcomes.insert(index, Err(error)),
        }
    }
    let new: Vec<NewKeys<'_>> = begun.iter().map(|(_, begun)| begun.upload.new_keys()).collect();
    let mut added = one_time_keys::add_one_time_keys(transaction, &new).await?;
    for (index, upload) in begun {
        let added = added.remove(&upload.upload.device()).unwrap_or_default();
        outcomes.insert(index, finish(transaction, upload, added, rows).await?);
    }
    Ok(())
}

/// Takes the locks on devices, and gives what keys they have.
async fn lock(
    transaction: &Transaction<'_>,
    devices: &BTreeSet<DeviceName>,
) -> Result<BTreeMap<DeviceName, KeyCounts>, StorageError> {
    let mut counts = one_time_keys::lock_devices(transaction, devices).await?;
    let new: BTreeSet<DeviceName> =
        devices.iter().filter(|device| !counts.contains_key(*device)).cloned().collect();
    if !new.is_empty() {
        counts.extend(one_time_keys::lock_first(transaction, &new).await?);
    }
    Ok(counts)
}

/// An upload that was found to be good, but for names of one-time keys that are taken.
struct Begun<'a> {
    upload: &'a CheckedUpload,
    identity: Identity,
    counts: KeyCounts,
}

/// Checks an upload, and forgets the keys of an identity that it replaces.
async fn begin<'a>(
    transaction: &Transaction<'_>,
    upload: &'a CheckedUpload,
    counts: Option<KeyCounts>,
) -> Result<Result<Begun<'a>, KeyError>, StorageError> {
    let (user, device) = (upload.user_id.as_str(), upload.device_id.as_str());
    let Some(mut counts) = counts else { return Ok(Err(KeyError::UnknownDevice)) };
    let known_keys = match &upload.device_keys {
        Some(_) => device_keys::get_device_keys(transaction, user, device).await?,
        None => None,
    };
    let identity = Identity::of(upload.device_keys.as_ref(), known_keys.as_deref());
    if identity == Identity::Other {
        counts = KeyCounts::default();
    }
    if counts.one_time.values().sum::<u64>() + upload.one_time_keys.len() as u64 > MAX_ONE_TIME_KEYS {
        return Ok(Err(KeyError::TooManyOneTimeKeys));
    }
    if identity == Identity::Other {
        one_time_keys::delete_keys_of_device(transaction, user, device).await?;
        myelin_storage::cross_signing::delete_signatures(transaction, user, device).await?;
    }
    Ok(Ok(Begun { upload, identity, counts }))
}

/// Stores the rest of an upload, of whose one-time keys those of the names `added` are stored already.
async fn finish(
    transaction: &Transaction<'_>,
    begun: Begun<'_>,
    added: Vec<KeyName>,
    rows: &mut Vec<DeviceListRow>,
) -> Result<Stored, StorageError> {
    let Begun { upload, identity, mut counts } = begun;
    let (user, device) = (upload.user_id.as_str(), upload.device_id.as_str());
    if added.len() < upload.one_time_keys.len() {
        let known = one_time_keys::list_one_time_keys(transaction, upload.new_keys()).await?;
        if let Some(clash) = find_other_key(&upload.one_time_keys, &known) {
            one_time_keys::remove_one_time_keys(transaction, user, device, &added).await?;
            return Ok(Err(KeyError::OneTimeKeyExists(clash)));
        }
    }
    for (algorithm, _) in added {
        *counts.one_time.entry(algorithm).or_insert(0) += 1;
    }
    if let Some(keys) = upload.device_keys.as_ref().filter(|_| identity != Identity::Same) {
        device_keys::set_device_keys(transaction, user, device, &keys.to_json()).await?;
        rows.push(DeviceListRow::Changed { user_id: upload.user_id.clone() });
    }
    let used = one_time_keys::set_fallback_keys(transaction, user, device, &upload.fallback_keys).await?;
    for (key, is_used) in upload.fallback_keys.iter().zip(used) {
        note_fallback(&mut counts, &key.algorithm, is_used);
    }
    counts.one_time.entry(USUAL_ALGORITHM.to_owned()).or_insert(0);
    let counts = Arc::new(counts);
    let has_keys = !upload.one_time_keys.is_empty() || !upload.fallback_keys.is_empty();
    if has_keys || identity == Identity::Other {
        let (user_id, device_id) = (upload.user_id.clone(), upload.device_id.clone());
        rows.push(DeviceListRow::KeyCounts { user_id, device_id, counts: counts.clone() });
    }
    Ok(Ok(counts))
}

/// Notes whether a device's fallback key of an algorithm has been given out.
pub(crate) fn note_fallback(counts: &mut KeyCounts, algorithm: &str, is_used: bool) {
    counts.unused_fallback.retain(|unused| unused != algorithm);
    if !is_used {
        counts.unused_fallback.push(algorithm.to_owned());
        counts.unused_fallback.sort_unstable();
    }
}

/// How uploaded identity keys compare with those that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// There is nothing to store.
    Same,
    /// First keys, or the same keys with other signatures or algorithms.
    Updated,
    /// Other keys.
    Other,
}

impl Identity {
    fn of(uploaded: Option<&SignedObject>, known: Option<&str>) -> Self {
        let (Some(uploaded), Some(known)) = (uploaded, known) else {
            return if uploaded.is_some() { Self::Updated } else { Self::Same };
        };
        if uploaded.to_json() == known {
            return Self::Same;
        }
        let known_keys = serde_json::from_str::<&RawValue>(known).ok().and_then(SignedObject::parse);
        match known_keys {
            Some(known) if known.keys() == uploaded.keys() => Self::Updated,
            _ => Self::Other,
        }
    }
}

/// The first of the uploaded keys whose id another key has.
fn find_other_key(uploaded: &[OneTimeKeyRow], known: &[OneTimeKeyRow]) -> Option<OwnedOneTimeKeyId> {
    let value = |key: &OneTimeKeyRow| serde_json::from_str::<Value>(&key.key_json).ok();
    let known: HashMap<(&str, &str), &OneTimeKeyRow> =
        known.iter().map(|key| ((key.algorithm.as_str(), key.key_id.as_str()), key)).collect();
    let clash = uploaded.iter().find(|new| {
        let known = known.get(&(new.algorithm.as_str(), new.key_id.as_str()));
        known.is_some_and(|known| new.key_json != known.key_json && value(new) != value(known))
    })?;
    Some(OneTimeKeyId::from_parts(clash.algorithm.as_str().into(), clash.key_id.as_str().into()))
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::test_support::*;

    fn one_time(keys: &[(&str, Value)]) -> KeysUpload {
        let keys = keys.iter().map(|(id, key)| ((*id).try_into().unwrap(), typed(key)));
        KeysUpload { one_time_keys: keys.collect(), ..KeysUpload::default() }
    }

    fn identity(keys: &Value) -> KeysUpload {
        KeysUpload { device_keys: Some(typed(keys)), ..KeysUpload::default() }
    }

    #[tokio::test]
    async fn an_upload_can_be_repeated_but_not_put_another_key_under_the_same_id() {
        let services = services().await;
        let phone = phone_id();
        services.add_device(alice_id(), phone).await;
        let upload = async |keys: &[(&str, Value)]| {
            services.devices.upload_keys(alice_id(), phone, one_time(keys)).await
        };
        let key = json!({ "key": "a", "signatures": {} });
        let reordered = json!({ "signatures": {}, "key": "a" });
        for key in [&key, &key, &reordered] {
            let counts = upload(&[("signed_curve25519:1", key.clone())]).await.unwrap();
            assert_eq!(counts.one_time, [("signed_curve25519".to_owned(), 1)].into());
        }
        let other =
            [("signed_curve25519:2", json!({ "key": "b" })), ("signed_curve25519:1", json!({ "key": "b" }))];
        let refused = upload(&other).await.unwrap_err();
        assert!(matches!(refused, KeyError::OneTimeKeyExists(id) if id == "signed_curve25519:1"));
        assert_eq!(
            services.devices.key_counts(alice_id(), phone).await.unwrap().one_time["signed_curve25519"],
            1
        );
        assert!(matches!(upload(&[("signed_curve25519:9", json!(1))]).await, Err(KeyError::Malformed(_))));
    }

    #[tokio::test]
    async fn keys_of_another_user_or_device_are_refused() {
        let services = services().await;
        let key = TestKey::new("PHONE");
        let keys = device_keys(alice_id(), device_id!("PHONE"), &key);
        let refused = [(user_id!("@b:x"), device_id!("PHONE")), (alice_id(), device_id!("OTHER"))];
        for (user_id, device_id) in refused {
            let outcome = services.devices.upload_keys(user_id, device_id, identity(&keys)).await;
            assert!(matches!(outcome, Err(KeyError::NotYours)), "{user_id} {device_id}");
        }
        let outcome =
            services.devices.upload_keys(alice_id(), device_id!("PHONE"), identity(&json!({}))).await;
        assert!(matches!(outcome, Err(KeyError::Malformed(_))));
    }

    #[tokio::test]
    async fn only_new_identity_keys_are_told_and_they_end_the_one_time_keys_of_the_former() {
        let services = services().await;
        let phone = phone_id();
        services.add_device(alice_id(), phone).await;
        let (first, second) = (TestKey::new("PHONE"), TestKey::new("PHONE"));
        let (first, second) =
            (device_keys(alice_id(), phone, &first), device_keys(alice_id(), phone, &second));
        let keys = [("signed_curve25519:1", json!({ "key": "a" }))];
        services.devices.upload_keys(alice_id(), phone, one_time(&keys)).await.unwrap();
        for (keys, told, left) in [(&first, true, 1), (&first, false, 1), (&second, true, 0)] {
            let before = (*services.devices.feed().position()).clone();
            let counts = services.devices.upload_keys(alice_id(), phone, identity(keys)).await.unwrap();
            assert_eq!(counts.one_time["signed_curve25519"], left);
            assert_eq!(services.devices.key_counts(alice_id(), phone).await.unwrap(), counts);
            let now = services.devices.feed().position();
            let changed = services.devices.changed_since(alice_id(), &before, &now, |_| false).await.unwrap();
            assert_eq!(!changed.is_empty(), told);
        }
    }

    #[tokio::test]
    async fn a_device_has_a_bounded_number_of_keys() {
        let services = services().await;
        let keys = |range: std::ops::Range<u64>| {
            let ids: Vec<_> =
                range.map(|number| (format!("signed_curve25519:{number}"), json!({ "key": "k" }))).collect();
            one_time(&ids.iter().map(|(id, key)| (id.as_str(), key.clone())).collect::<Vec<_>>())
        };
        let phone = phone_id();
        let none = services.devices.upload_keys(alice_id(), phone, keys(0..1)).await;
        assert!(matches!(none, Err(KeyError::UnknownDevice)));
        services.add_device(alice_id(), phone).await;
        services.devices.upload_keys(alice_id(), phone, keys(0..MAX_ONE_TIME_KEYS)).await.unwrap();
        let outcome = services
            .devices
            .upload_keys(alice_id(), phone, keys(MAX_ONE_TIME_KEYS..MAX_ONE_TIME_KEYS + 1))
            .await;
        assert!(matches!(outcome, Err(KeyError::TooManyOneTimeKeys)));
    }
}
