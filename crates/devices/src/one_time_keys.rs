//! Claiming one-time keys
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim)).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use myelin_storage::{
    StorageError, Transaction,
    one_time_keys::{self, ClaimRow, DeviceName, OneTimeKeyRow},
    pipelined,
};
use ruma::{
    OneTimeKeyAlgorithm, OneTimeKeyId, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, encryption::OneTimeKey,
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{DeviceListRow, Devices, KeyCounts, KeyError, device_keys::note_fallback, stream};

/// Of which devices a key is wanted, and of which algorithm.
pub type WantedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// The keys that were claimed.
pub type ClaimedKeys =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>>>;

impl Devices {
    /// Takes a one-time key of each device, the oldest, or else its fallback key. Devices that have neither are left
    /// out. No one-time key is ever given out twice.
    ///
    /// # Errors
    /// If the database fails; no key was taken then.
    pub async fn claim_keys(&self, wanted: &WantedKeys) -> Result<ClaimedKeys, KeyError> {
        let wanted: Vec<ClaimRow> = wanted
            .iter()
            .flat_map(|(user_id, devices)| {
                devices.iter().map(move |(device_id, algorithm)| (user_id, device_id, algorithm))
            })
            .map(|(user_id, device_id, algorithm)| ClaimRow {
                user_id: user_id.to_string(),
                device_id: device_id.to_string(),
                algorithm: algorithm.to_string(),
            })
            .collect();
        if wanted.is_empty() {
            return Ok(ClaimedKeys::new());
        }
        let claimed = self.0.claims.serve(wanted).await?;
        let mut keys = ClaimedKeys::new();
        for (claim, key) in claimed {
            let OneTimeKeyRow { algorithm, key_id, key_json } = key;
            let id = OneTimeKeyId::from_parts(algorithm.into(), key_id.as_str().into());
            let json = RawValue::from_string(key_json).map_err(|error| {
                StorageError::Inconsistent(format!("a one-time key of {} is no JSON: {error}", claim.user_id))
            })?;
            keys.entry(stream::user_id(&claim.user_id)?)
                .or_default()
                .insert(claim.device_id.into(), [(id, Raw::from_json(json))].into());
        }
        Ok(keys)
    }
}

/// What one request gets: keys, each with what was asked for.
pub(crate) type Claimed = Vec<(ClaimRow, OneTimeKeyRow)>;

/// Takes keys for several requests.
pub(crate) async fn claim(
    transaction: &Transaction<'_>,
    requests: Vec<Vec<ClaimRow>>,
) -> Result<(Vec<Claimed>, Vec<DeviceListRow>), StorageError> {
    let mut wanted: BTreeMap<ClaimRow, i64> = BTreeMap::new();
    requests.iter().flatten().for_each(|claim| *wanted.entry(claim.clone()).or_default() += 1);
    let devices: BTreeSet<DeviceName> = wanted.keys().map(ClaimRow::device).collect();
    // The server runs the second statement once the first has the locks.
    let (mut counts, taken) = pipelined(
        one_time_keys::lock_devices(transaction, &devices),
        one_time_keys::claim_one_time_keys(transaction, &wanted),
    )
    .await?;
    let mut keys: BTreeMap<ClaimRow, VecDeque<OneTimeKeyRow>> = BTreeMap::new();
    for (claim, key) in taken {
        if let Some(left) =
            counts.get_mut(&claim.device()).and_then(|counts| counts.one_time.get_mut(&claim.algorithm))
        {
            *left = left.saturating_sub(1);
        }
        keys.entry(claim).or_default().push_back(key);
    }
    let fallback = fallback_for(transaction, &wanted, &keys, &mut counts).await?;
    let mut touched = BTreeSet::new();
    let mut serve = |claim: ClaimRow| {
        let key =
            keys.get_mut(&claim).and_then(VecDeque::pop_front).or_else(|| fallback.get(&claim).cloned())?;
        touched.insert(claim.device());
        Some((claim, key))
    };
    let claimed =
        requests.into_iter().map(|request| request.into_iter().filter_map(&mut serve).collect()).collect();
    let mut rows = Vec::new();
    for device in touched {
        if let Some(counts) = counts.remove(&device) {
            let (user_id, device_id) = device;
            rows.push(DeviceListRow::KeyCounts {
                user_id: stream::user_id(&user_id)?,
                device_id: device_id.into(),
                counts: Arc::new(counts),
            });
        }
    }
    Ok((claimed, rows))
}

/// The fallback keys of devices that have fewer one-time keys than are wanted.
async fn fallback_for(
    transaction: &Transaction<'_>,
    wanted: &BTreeMap<ClaimRow, i64>,
    keys: &BTreeMap<ClaimRow, VecDeque<OneTimeKeyRow>>,
    counts: &mut BTreeMap<DeviceName, KeyCounts>,
) -> Result<BTreeMap<ClaimRow, OneTimeKeyRow>, StorageError> {
    let mut missing = Vec::new();
    for (claim, count) in wanted {
        let taken = keys.get(claim).map_or(0, VecDeque::len);
        if i64::try_from(taken).is_ok_and(|taken| taken < *count) && counts.contains_key(&claim.device()) {
            missing.push(claim);
        }
    }
    if missing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fallback: BTreeMap<_, _> =
        one_time_keys::claim_fallback_keys(transaction, &missing).await?.into_iter().collect();
    for claim in fallback.keys() {
        if let Some(counts) = counts.get_mut(&claim.device()) {
            note_fallback(counts, &claim.algorithm, true);
        }
    }
    Ok(fallback)
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::{KeysUpload, test_support::*};

    fn wanted(devices: &[&str]) -> WantedKeys {
        let devices =
            devices.iter().map(|device_id| ((*device_id).into(), OneTimeKeyAlgorithm::SignedCurve25519));
        [(user_id!("@a:x").to_owned(), devices.collect())].into()
    }

    async fn upload(services: &Services, one_time: &[&str], fallback: &[&str]) {
        let keys = |ids: &[&str]| {
            ids.iter().map(|id| ((*id).try_into().unwrap(), typed(&json!({ "key": id })))).collect()
        };
        let upload =
            KeysUpload { device_keys: None, one_time_keys: keys(one_time), fallback_keys: keys(fallback) };
        services.add_device(user_id!("@a:x"), device_id!("D")).await;
        services.devices.upload_keys(user_id!("@a:x"), device_id!("D"), upload).await.unwrap();
    }

    fn ids(claimed: &ClaimedKeys) -> Vec<String> {
        let devices = claimed.values().flatten();
        devices.flat_map(|(_, keys)| keys.keys()).map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn of_many_who_ask_at_once_each_gets_another_key_until_there_is_but_the_fallback_key() {
        let services = services().await;
        let device = |name: &str| format!("signed_curve25519:{name}");
        let keys: Vec<String> = (10..20).map(|number| device(&number.to_string())).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        // Half of them are there twice.
        futures_util::future::join(
            upload(&services, &keys[..7], &["signed_curve25519:F"]),
            upload(&services, &keys[5..], &[]),
        )
        .await;
        let wanted = wanted(&["D"]);
        let claims = (0..12).map(|_| services.devices.claim_keys(&wanted));
        let claimed = futures_util::future::join_all(claims).await;
        let mut given: Vec<String> =
            claimed.iter().flat_map(|claimed| ids(claimed.as_ref().unwrap())).collect();
        given.sort_unstable();
        let fallback = device("F");
        assert_eq!(given, [&keys[..], &[&fallback, &fallback]].concat());
        let counts = services.devices.key_counts(user_id!("@a:x"), device_id!("D")).await.unwrap();
        assert_eq!((counts.one_time["signed_curve25519"], counts.unused_fallback.len()), (0, 0));
    }

    #[tokio::test]
    async fn one_time_keys_go_out_once_and_the_fallback_key_after_them_and_the_counts_follow() {
        let services = services().await;
        upload(&services, &["signed_curve25519:B"], &["signed_curve25519:F"]).await;
        upload(&services, &["signed_curve25519:A"], &[]).await;
        let steps = [("B", 1, true), ("A", 0, true), ("F", 0, false), ("F", 0, false)];
        for (expected, left, unused) in steps {
            let claimed = services.devices.claim_keys(&wanted(&["D", "UNKNOWN"])).await.unwrap();
            assert_eq!(ids(&claimed), [format!("signed_curve25519:{expected}")]);
            let counts = services.devices.key_counts(user_id!("@a:x"), device_id!("D")).await.unwrap();
            assert_eq!(counts.one_time["signed_curve25519"], left);
            assert_eq!(!counts.unused_fallback.is_empty(), unused);
        }
        assert!(services.devices.claim_keys(&wanted(&["UNKNOWN"])).await.unwrap().is_empty());
        assert!(services.devices.claim_keys(&WantedKeys::new()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn claims_at_the_same_time_never_get_the_same_key() {
        let services = services().await;
        let keys: Vec<String> = (0..20).map(|number| format!("signed_curve25519:{number:02}")).collect();
        upload(&services, &keys.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
        let request = wanted(&["D"]);
        let claims = (0..25).map(|_| services.devices.claim_keys(&request));
        let claimed = futures_util::future::try_join_all(claims).await.unwrap();
        let mut given: Vec<String> = claimed.iter().flat_map(ids).collect();
        given.sort();
        assert_eq!(given, keys);
    }
}
