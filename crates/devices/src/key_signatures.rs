//! Uploading signatures on keys
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload)).

use std::collections::{BTreeMap, BTreeSet};

use myelin_storage::{
    StorageError,
    cross_signing::{self, KeySignatureRow},
    device_keys,
};
use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;

use crate::{DeviceListRow, Devices, KeyError, cross_signing::SigningKey, signed_json::SignedObject, stream};

/// Why the signatures on one key were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFailure {
    /// The user has no such key here.
    #[error("The key is unknown")]
    UnknownKey,
    /// What was signed is not the key that is known here.
    #[error("The key is not the one that was uploaded")]
    OtherKey,
    /// There is no signature by a key that may sign this one, or it is wrong.
    #[error("Invalid signature")]
    InvalidSignature,
}

/// The failures, by user and key.
type Failures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureFailure>>;

impl Devices {
    /// Stores the signatures that `signer` made on keys: on their own devices with the self-signing key, on their own
    /// master key with a device's key, on other users' master keys with the user-signing key. Gives what was not
    /// accepted; the rest is stored.
    ///
    /// # Errors
    /// If the database fails; nothing was stored then.
    pub async fn upload_signatures<'a, K>(
        &self,
        signer: &UserId,
        signed: impl IntoIterator<Item = (&'a OwnedUserId, K)>,
    ) -> Result<Failures, KeyError>
    where
        K: IntoIterator<Item = (&'a str, &'a RawValue)>,
    {
        let signed: Vec<(&OwnedUserId, Vec<(&str, &RawValue)>)> =
            signed.into_iter().map(|(user_id, keys)| (user_id, keys.into_iter().collect())).collect();
        let known = self.known_keys(signer, signed.iter().map(|(user_id, _)| *user_id)).await?;
        let mut failures = Failures::new();
        let mut good = Vec::new();
        for (user_id, keys) in signed {
            for (key_id, json) in keys {
                match known.check(signer, user_id, key_id, json) {
                    Ok(rows) => good.extend(rows),
                    Err(failure) => {
                        failures.entry(user_id.clone()).or_default().insert(key_id.to_owned(), failure);
                    }
                }
            }
        }
        if !good.is_empty() {
            self.store_signatures(good).await?;
        }
        Ok(failures)
    }

    async fn known_keys<'a>(
        &self,
        signer: &UserId,
        targets: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Result<KnownKeys, StorageError> {
        let mut user_ids: BTreeSet<&str> = targets.map(|user_id| user_id.as_str()).collect();
        user_ids.insert(signer.as_str());
        let user_ids: Vec<&str> = user_ids.into_iter().collect();
        let client = self.0.database.get().await?;
        let signing_keys = cross_signing::list_cross_signing_keys(&client, &user_ids).await?;
        let devices = device_keys::list_device_keys(&client, &[signer.as_str()]).await?;
        drop(client);
        let signing_keys = signing_keys.into_iter().map(|row| {
            let key = (row.user_id.clone(), row.usage.clone());
            Ok((key, SigningKey::stored(row)?))
        });
        let devices = devices.into_iter().filter_map(|row| {
            let json: &RawValue = serde_json::from_str(&row.key_json).ok()?;
            Some((row.device_id, SignedObject::parse(json)?))
        });
        Ok(KnownKeys {
            signing_keys: signing_keys.collect::<Result<_, StorageError>>()?,
            devices: devices.collect(),
        })
    }

    async fn store_signatures(&self, rows: Vec<KeySignatureRow>) -> Result<(), KeyError> {
        self.0
            .writer
            .transact(move |transaction| {
                Box::pin(async move {
                    let mut changes = Vec::new();
                    for row in rows {
                        if !cross_signing::set_signature(transaction, &row).await? {
                            continue;
                        }
                        let user_id = stream::user_id(&row.user_id)?;
                        let change = match row.signer_user_id == row.user_id {
                            true => DeviceListRow::Changed { user_id },
                            // Who verified whom is nobody else's business.
                            false => {
                                DeviceListRow::Signed { user_id, by: stream::user_id(&row.signer_user_id)? }
                            }
                        };
                        if !changes.contains(&change) {
                            changes.push(change);
                        }
                    }
                    Ok(((), changes))
                })
            })
            .await?;
        Ok(())
    }
}

/// The keys that may be signed or sign.
struct KnownKeys {
    /// By user and usage.
    signing_keys: BTreeMap<(String, String), SigningKey>,
    /// The signer's devices.
    devices: BTreeMap<String, SignedObject>,
}

impl KnownKeys {
    fn signing_key(&self, user_id: &UserId, usage: &str) -> Option<&SigningKey> {
        self.signing_keys.get(&(user_id.to_string(), usage.to_owned()))
    }

    /// The good signatures that `signer` made on a key.
    fn check(
        &self,
        signer: &UserId,
        user_id: &UserId,
        key_id: &str,
        json: &RawValue,
    ) -> Result<Vec<KeySignatureRow>, SignatureFailure> {
        let object = SignedObject::parse(json).ok_or(SignatureFailure::OtherKey)?;
        let master = self.signing_key(user_id, "master").filter(|master| master.public_key == key_id);
        let (known, signers) = match master {
            Some(master) if signer == user_id => (&master.object, self.device_signers()),
            Some(master) => (&master.object, self.signing_key_signer(signer, "user_signing")),
            None if signer == user_id => {
                let device = self.devices.get(key_id).ok_or(SignatureFailure::UnknownKey)?;
                (device, self.signing_key_signer(signer, "self_signing"))
            }
            None => return Err(SignatureFailure::UnknownKey),
        };
        if !known.same_content(&object) {
            return Err(SignatureFailure::OtherKey);
        }
        let of_signer = object.signatures_of(signer.as_str()).ok_or(SignatureFailure::InvalidSignature)?;
        let mut rows = Vec::new();
        for (signer_key_id, public_key) in signers {
            let Some(signature) = of_signer.get(&signer_key_id).and_then(|signature| signature.as_str())
            else {
                continue;
            };
            if !object.verifies(signer.as_str(), &signer_key_id, &public_key) {
                return Err(SignatureFailure::InvalidSignature);
            }
            rows.push(KeySignatureRow {
                user_id: user_id.to_string(),
                key_id: key_id.to_owned(),
                signer_user_id: signer.to_string(),
                signer_key_id,
                signature: signature.to_owned(),
            });
        }
        if rows.is_empty() { Err(SignatureFailure::InvalidSignature) } else { Ok(rows) }
    }

    /// The signer's devices, as (name of the key, public key).
    fn device_signers(&self) -> Vec<(String, String)> {
        let signers = self.devices.iter().filter_map(|(device_id, keys)| {
            let key_id = format!("ed25519:{device_id}");
            let public_key = keys.public_key(&key_id)?.to_owned();
            Some((key_id, public_key))
        });
        signers.collect()
    }

    fn signing_key_signer(&self, signer: &UserId, usage: &str) -> Vec<(String, String)> {
        self.signing_key(signer, usage)
            .map(|key| (key.key_id(), key.public_key.clone()))
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ruma::device_id;
    use serde_json::Value;

    use super::*;
    use crate::{KeysUpload, SigningKeysUpload, test_support::*};

    struct Identity {
        device_key: TestKey,
        device: Value,
        master: TestKey,
        master_json: Value,
        self_signing: TestKey,
        user_signing: TestKey,
    }

    /// A user with one device and all cross-signing keys.
    async fn identity(services: &Services, user_id: &UserId) -> Identity {
        let device_id = device_id!("PHONE");
        services.add_device(user_id, device_id).await;
        let device_key = TestKey::new("PHONE");
        let device = device_keys(user_id, device_id, &device_key);
        let upload = KeysUpload { device_keys: Some(typed(&device)), ..KeysUpload::default() };
        services.devices.upload_keys(user_id, device_id, upload).await.unwrap();

        let (master, self_signing, user_signing) =
            (TestKey::cross_signing(), TestKey::cross_signing(), TestKey::cross_signing());
        let user = user_id.as_str();
        let master_json = master.as_signing_key(user, "master");
        let upload = SigningKeysUpload {
            master_key: Some(typed(&master_json)),
            self_signing_key: Some(typed(
                &master.sign(user, self_signing.as_signing_key(user, "self_signing")),
            )),
            user_signing_key: Some(typed(
                &master.sign(user, user_signing.as_signing_key(user, "user_signing")),
            )),
        };
        services.devices.upload_signing_keys(user_id, &upload, false).await.unwrap();
        Identity { device_key, device, master, master_json, self_signing, user_signing }
    }

    async fn upload(
        services: &Services,
        user_id: &UserId,
        key_id: &str,
        json: &Value,
    ) -> Option<SignatureFailure> {
        let json = raw(json);
        let user_id = user_id.to_owned();
        let signed = [(&user_id, [(key_id, &*json)])];
        let failures = services.devices.upload_signatures(alice_id(), signed).await.unwrap();
        failures.get(&user_id).and_then(|keys| keys.get(key_id)).copied()
    }

    async fn signatures(services: &Services, asker: &UserId, of: &UserId) -> (Value, Value) {
        let keys = services.devices.query_keys(Some(asker), &[(of.to_owned(), vec![])].into()).await.unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap()["signatures"].take();
        (
            json(keys.device_keys[of][device_id!("PHONE")].json().get()),
            json(keys.master_keys[of].json().get()),
        )
    }

    #[tokio::test]
    async fn a_user_signs_their_devices_and_master_key_for_all_to_see() {
        let services = services().await;
        let alice = identity(&services, alice_id()).await;
        let before = (*services.devices.feed().position()).clone();
        let device = alice.self_signing.sign("@a:x", alice.device.clone());
        assert_eq!(upload(&services, alice_id(), "PHONE", &device).await, None);
        let master = alice.device_key.sign("@a:x", alice.master_json.clone());
        assert_eq!(upload(&services, alice_id(), &alice.master.public(), &master).await, None);

        let (on_device, on_master) = signatures(&services, bob_id(), alice_id()).await;
        assert!(on_device["@a:x"][alice.self_signing.key_id()].is_string(), "{on_device}");
        assert!(on_device["@a:x"]["ed25519:PHONE"].is_string(), "{on_device}");
        assert!(on_master["@a:x"]["ed25519:PHONE"].is_string(), "{on_master}");
        let now = services.devices.feed().position();
        assert_eq!(services.devices.changed_since(bob_id(), &before, &now, |_| true).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_verification_of_another_user_is_seen_by_the_verifier_alone() {
        let services = services().await;
        let (alice, bob) = (identity(&services, alice_id()).await, identity(&services, bob_id()).await);
        let before = (*services.devices.feed().position()).clone();
        let signed = alice.user_signing.sign("@a:x", bob.master_json.clone());
        for _ in 0..2 {
            assert_eq!(upload(&services, bob_id(), &bob.master.public(), &signed).await, None);
        }
        let seen_by = async |asker| signatures(&services, asker, bob_id()).await.1["@a:x"].is_object();
        assert!(seen_by(alice_id()).await);
        assert!(!seen_by(bob_id()).await);
        let now = services.devices.feed().position();
        let changed =
            async |asker| services.devices.changed_since(asker, &before, &now, |_| true).await.unwrap();
        assert_eq!(changed(alice_id()).await.iter().collect::<Vec<_>>(), [bob_id()]);
        assert!(changed(bob_id()).await.is_empty());
    }

    #[tokio::test]
    async fn each_key_fails_for_itself() {
        let services = services().await;
        let (alice, bob) = (identity(&services, alice_id()).await, identity(&services, bob_id()).await);
        let mut forged = alice.self_signing.sign("@a:x", alice.device.clone());
        forged["signatures"]["@a:x"][alice.self_signing.key_id()] = "AAAA".into();
        let mut changed = alice.device.clone();
        changed["algorithms"] = serde_json::json!([]);
        let cases = [
            (alice_id(), "PHONE", forged, SignatureFailure::InvalidSignature),
            (alice_id(), "PHONE", alice.device.clone(), SignatureFailure::InvalidSignature),
            (alice_id(), "PHONE", alice.self_signing.sign("@a:x", changed), SignatureFailure::OtherKey),
            (alice_id(), "TABLET", alice.device.clone(), SignatureFailure::UnknownKey),
            (
                bob_id(),
                "PHONE",
                alice.user_signing.sign("@a:x", bob.device.clone()),
                SignatureFailure::UnknownKey,
            ),
            (
                bob_id(),
                &bob.master.public(),
                alice.self_signing.sign("@a:x", bob.master_json.clone()),
                SignatureFailure::InvalidSignature,
            ),
            (alice_id(), "PHONE", Value::Null, SignatureFailure::OtherKey),
        ];
        for (user_id, key_id, json, expected) in cases {
            assert_eq!(
                upload(&services, user_id, key_id, &json).await,
                Some(expected),
                "{user_id} {key_id} {json}"
            );
        }
    }
}
