//! Asking for the keys of users
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery)).

use std::collections::BTreeMap;

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

use crate::{Devices, stream};

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
    /// # Errors
    /// If the database fails.
    pub async fn query_keys(
        &self,
        asker: Option<&UserId>,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<QueriedKeys> {
        let user_ids: Vec<&str> = wanted.keys().map(|user_id| user_id.as_str()).collect();
        let asker = asker.map_or("", UserId::as_str);
        let client = self.0.database.get().await?;
        let (devices, signing_keys, signatures) = futures_util::future::try_join3(
            device_keys::list_device_keys(&client, &user_ids),
            cross_signing::list_cross_signing_keys(&client, &user_ids),
            cross_signing::list_visible_signatures(&client, &user_ids, asker),
        )
        .await?;
        drop(client);

        let signatures = Signatures::new(asker, signatures);
        let mut keys = QueriedKeys {
            device_keys: wanted.keys().map(|user_id| (user_id.clone(), BTreeMap::new())).collect(),
            ..QueriedKeys::default()
        };
        for row in devices {
            let user_id = stream::user_id(&row.user_id)?;
            let device_id = OwnedDeviceId::from(row.device_id.as_str());
            let listed = wanted.get(&user_id).is_some_and(|ids| ids.is_empty() || ids.contains(&device_id));
            if listed {
                let json = signatures.device(row)?;
                keys.device_keys.entry(user_id).or_default().insert(device_id, json);
            }
        }
        for row in signing_keys {
            let user_id = stream::user_id(&row.user_id)?;
            let map = match row.usage.as_str() {
                "master" => &mut keys.master_keys,
                "self_signing" => &mut keys.self_signing_keys,
                "user_signing" if user_id == asker => &mut keys.user_signing_keys,
                _ => continue,
            };
            map.insert(user_id, signatures.signing_key(row)?);
        }
        Ok(keys)
    }
}

/// The signatures that were made after the upload, by user and key.
struct Signatures<'a> {
    asker: &'a str,
    by_key: BTreeMap<(String, String), Vec<KeySignatureRow>>,
}

impl<'a> Signatures<'a> {
    fn new(asker: &'a str, rows: Vec<KeySignatureRow>) -> Self {
        let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in rows {
            by_key.entry((row.user_id.clone(), row.key_id.clone())).or_default().push(row);
        }
        Self { asker, by_key }
    }

    fn device(&self, row: DeviceKeysRow) -> Result<Raw<DeviceKeys>> {
        let mut object = parse(&row.key_json)?;
        self.add(&mut object, row.user_id, row.device_id);
        let mut unsigned = Map::new();
        if let Some(name) = row.display_name {
            unsigned.insert("device_display_name".to_owned(), name.into());
        }
        object.insert("unsigned".to_owned(), unsigned.into());
        serialize(&object)
    }

    fn signing_key(&self, row: CrossSigningKeyRow) -> Result<Raw<CrossSigningKey>> {
        let mut object = parse(&row.key_json)?;
        self.add(&mut object, row.user_id, row.public_key);
        serialize(&object)
    }

    /// Merges the later signatures in and takes out those that the asker may not see.
    fn add(&self, object: &mut Map<String, Value>, user_id: String, key_id: String) {
        let signatures = object.entry("signatures").or_insert_with(|| Map::new().into());
        if !signatures.is_object() {
            *signatures = Map::new().into();
        }
        if let Value::Object(signatures) = signatures {
            signatures.retain(|signer, _| *signer == user_id || signer == self.asker);
            for row in self.by_key.get(&(user_id, key_id)).into_iter().flatten() {
                let of_signer =
                    signatures.entry(row.signer_user_id.clone()).or_insert_with(|| Map::new().into());
                if let Value::Object(of_signer) = of_signer {
                    of_signer.insert(row.signer_key_id.clone(), row.signature.clone().into());
                }
            }
        }
    }
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
    use ruma::{device_id, user_id};

    use super::*;
    use crate::{KeysUpload, test_support::*};

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
        let signatures = Signatures::new("@me:x", vec![row("@a:x"), row("@me:x")]);
        let key = CrossSigningKeyRow {
            user_id: "@a:x".to_owned(),
            usage: "master".to_owned(),
            public_key: "MASTER".to_owned(),
            key_json: r#"{"signatures":{"@a:x":{"ed25519:D":"first"},"@other:x":{"ed25519:O":"secret"}}}"#
                .to_owned(),
        };
        let json: Value = signatures.signing_key(key).unwrap().deserialize_as_unchecked().unwrap();
        assert_eq!(
            json["signatures"],
            serde_json::json!({
                "@a:x": { "ed25519:D": "first", "ed25519:K": "later" },
                "@me:x": { "ed25519:K": "later" },
            })
        );
    }
}
