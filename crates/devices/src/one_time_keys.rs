//! Claiming one-time keys
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim)).

use std::{collections::BTreeMap, sync::Arc};

use myelin_storage::{
    StorageError, Transaction,
    one_time_keys::{self, ClaimRow, OneTimeKeyRow},
};
use ruma::{
    OneTimeKeyAlgorithm, OneTimeKeyId, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, encryption::OneTimeKey,
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{DeviceListRow, Devices, KeyError, device_keys::note_fallback, stream};

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
        let claimed = self.0.writer.transact(move |transaction| Box::pin(claim(transaction, wanted))).await?;
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

type Claimed = Vec<(ClaimRow, OneTimeKeyRow)>;

async fn claim(
    transaction: &Transaction<'_>,
    mut wanted: Vec<ClaimRow>,
) -> Result<(Claimed, Vec<DeviceListRow>), StorageError> {
    let mut counts = one_time_keys::lock_devices_with_keys(transaction, &wanted).await?;
    wanted.retain(|claim| counts.contains_key(&device_of(claim)));
    if wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut claimed = one_time_keys::claim_one_time_keys(transaction, &wanted).await?;
    let mut rows = Vec::new();
    for (claim, _) in &claimed {
        if let Some(left) =
            counts.get_mut(&device_of(claim)).and_then(|counts| counts.one_time.get_mut(&claim.algorithm))
        {
            *left = left.saturating_sub(1);
        }
    }
    wanted.retain(|claim| !claimed.iter().any(|(found, _)| found == claim));
    if !wanted.is_empty() {
        let fallback = one_time_keys::claim_fallback_keys(transaction, &wanted).await?;
        for (claim, _) in &fallback {
            if let Some(counts) = counts.get_mut(&device_of(claim)) {
                note_fallback(counts, &claim.algorithm, true);
            }
        }
        claimed.extend(fallback);
    }
    for (claim, _) in &claimed {
        if let Some(counts) = counts.remove(&device_of(claim)) {
            rows.push(DeviceListRow::KeyCounts {
                user_id: stream::user_id(&claim.user_id)?,
                device_id: claim.device_id.as_str().into(),
                counts: Arc::new(counts),
            });
        }
    }
    Ok((claimed, rows))
}

fn device_of(claim: &ClaimRow) -> (String, String) {
    (claim.user_id.clone(), claim.device_id.clone())
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
