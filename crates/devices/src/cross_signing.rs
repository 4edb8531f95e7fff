//! Uploading cross-signing keys
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload)).

use myelin_storage::{
    StorageError, Transaction,
    cross_signing::{self, CrossSigningKeyRow},
    device_keys,
};
use ruma::{OwnedUserId, UserId, encryption::CrossSigningKey, serde::Raw};
use serde_json::value::RawValue;

use crate::{
    DeviceListRow, Devices, KeyError,
    signed_json::{SignedObject, decode},
};

/// What a user uploads.
#[derive(Clone, Debug, Default)]
pub struct SigningKeysUpload {
    /// The master key.
    pub master_key: Option<Raw<CrossSigningKey>>,
    /// The self-signing key, signed by the master key.
    pub self_signing_key: Option<Raw<CrossSigningKey>>,
    /// The user-signing key, signed by the master key.
    pub user_signing_key: Option<Raw<CrossSigningKey>>,
}

const MASTER: &str = "master";
const SELF_SIGNING: &str = "self_signing";
const USER_SIGNING: &str = "user_signing";

/// A cross-signing key of the right form.
pub(crate) struct SigningKey {
    pub usage: String,
    pub public_key: String,
    pub object: SignedObject,
}

impl SigningKey {
    /// Checks that a key is the user's, for this usage, and a public key under its own name.
    fn check(user_id: &UserId, usage: &str, key: &Raw<CrossSigningKey>) -> Result<Self, KeyError> {
        let malformed = |what: &str| KeyError::Malformed(format!("The {usage} key {what}"));
        let object =
            SignedObject::parse(key.json()).ok_or_else(|| malformed("is no object that can be signed"))?;
        match object.text_at("user_id") {
            Some(owner) if owner == user_id => {}
            Some(_) => return Err(KeyError::NotYours),
            None => return Err(malformed("has no user_id")),
        }
        if !object.texts_at("usage").contains(&usage) {
            return Err(malformed("is not for this usage"));
        }
        let public_key =
            only_key(&object).ok_or_else(|| malformed("must have one ed25519 key named after itself"))?;
        if decode(&public_key).is_none_or(|key| key.len() != 32) {
            return Err(malformed("is no ed25519 key"));
        }
        Ok(Self { usage: usage.to_owned(), public_key, object })
    }

    /// Reads a stored key.
    pub fn stored(row: CrossSigningKeyRow) -> Result<Self, StorageError> {
        let raw: Option<&RawValue> = serde_json::from_str(&row.key_json).ok();
        let object = raw.and_then(SignedObject::parse);
        let object =
            object.ok_or_else(|| StorageError::Inconsistent(format!("a signing key of {}", row.user_id)))?;
        Ok(Self { usage: row.usage, public_key: row.public_key, object })
    }

    /// The name that its signatures have.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.public_key)
    }

    fn to_row(&self, user_id: &UserId) -> CrossSigningKeyRow {
        CrossSigningKeyRow {
            user_id: user_id.to_string(),
            usage: self.usage.clone(),
            public_key: self.public_key.clone(),
            key_json: self.object.to_json(),
        }
    }
}

/// The one key of the object, which has its own public part as its name.
fn only_key(object: &SignedObject) -> Option<String> {
    let keys = object.keys().filter(|keys| keys.len() == 1)?;
    let (id, key) = keys.first_key_value()?;
    let key = key.as_str()?;
    (id.strip_prefix("ed25519:")? == key).then(|| key.to_owned())
}

impl Devices {
    /// Stores a user's cross-signing keys. Without `authenticated` only first keys, and keys that are there already,
    /// are accepted: to replace keys, or add to them, the user has to prove who they are.
    ///
    /// # Errors
    /// [`KeyError::AuthenticationRequired`] says that the same upload may be tried again after that proof.
    pub async fn upload_signing_keys(
        &self,
        user_id: &UserId,
        upload: &SigningKeysUpload,
        authenticated: bool,
    ) -> Result<(), KeyError> {
        let SigningKeysUpload { master_key, self_signing_key, user_signing_key } = upload;
        let wanted =
            [(MASTER, master_key), (SELF_SIGNING, self_signing_key), (USER_SIGNING, user_signing_key)];
        let keys: Vec<SigningKey> = wanted
            .iter()
            .filter_map(|(usage, key)| Some(SigningKey::check(user_id, usage, key.as_ref()?)))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Ok(());
        }
        let user_id = user_id.to_owned();
        self.0
            .writer
            .transact(move |transaction| Box::pin(store(transaction, user_id, keys, authenticated)))
            .await?
    }
}

type Stored = (Result<(), KeyError>, Vec<DeviceListRow>);

/// Every check comes before the first write, because what is written by then is committed.
async fn store(
    transaction: &Transaction<'_>,
    user_id: OwnedUserId,
    keys: Vec<SigningKey>,
    authenticated: bool,
) -> Result<Stored, StorageError> {
    let known = cross_signing::list_cross_signing_keys(transaction, &[user_id.as_str()]).await?;
    let known: Vec<SigningKey> = known.into_iter().map(SigningKey::stored).collect::<Result<_, _>>()?;
    let (fresh, same): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| {
        !known.iter().any(|known| known.usage == key.usage && known.public_key == key.public_key)
    });
    if fresh.is_empty() {
        return Ok((Ok(()), Vec::new()));
    }
    if let Err(refusal) = check_fresh(transaction, &user_id, &fresh, &known, authenticated).await? {
        return Ok((Err(refusal), Vec::new()));
    }

    let old_master = known.iter().find(|key| key.usage == MASTER);
    if let Some(old_master) = old_master.filter(|_| fresh.iter().any(|key| key.usage == MASTER)) {
        cross_signing::delete_signatures(transaction, user_id.as_str(), &old_master.public_key).await?;
        // The former master key's keys are not signed by the new one, and nobody would believe them.
        for key in known.iter().filter(|key| key.usage != MASTER) {
            let kept = same.iter().chain(&fresh).any(|kept| kept.usage == key.usage);
            if !kept {
                cross_signing::delete_cross_signing_key(transaction, user_id.as_str(), &key.usage).await?;
            }
        }
    }
    // A key that the new master key has signed comes with that signature.
    for key in fresh.iter().chain(&same) {
        cross_signing::set_cross_signing_key(transaction, &key.to_row(&user_id)).await?;
    }
    // The user-signing key is seen by the user alone.
    let change = match fresh.iter().all(|key| key.usage == USER_SIGNING) {
        true => DeviceListRow::Signed { by: user_id.clone(), user_id },
        false => DeviceListRow::Changed { user_id },
    };
    Ok((Ok(()), vec![change]))
}

async fn check_fresh(
    transaction: &Transaction<'_>,
    user_id: &UserId,
    fresh: &[SigningKey],
    known: &[SigningKey],
    authenticated: bool,
) -> Result<Result<(), KeyError>, StorageError> {
    let master_of = |keys: &[SigningKey]| keys.iter().position(|key| key.usage == MASTER);
    let old_master = master_of(known).map(|index| &known[index]);
    let Some(master) = master_of(fresh).map(|index| &fresh[index]).or(old_master) else {
        return Ok(Err(KeyError::NoMasterKey));
    };
    let signed_by_master = |key: &SigningKey| {
        key.usage == MASTER || key.object.verifies(user_id.as_str(), &master.key_id(), &master.public_key)
    };
    if !fresh.iter().all(signed_by_master) {
        return Ok(Err(KeyError::InvalidSignature("The key is not signed by the master key")));
    }
    // Devices and public keys share one namespace:
    // <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>
    let public_keys: Vec<&str> = fresh.iter().map(|key| key.public_key.as_str()).collect();
    if !device_keys::list_devices_named(transaction, user_id.as_str(), &public_keys).await?.is_empty() {
        return Ok(Err(KeyError::KeyIdInUse));
    }
    if old_master.is_some() && !authenticated {
        return Ok(Err(KeyError::AuthenticationRequired));
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Value, json};

    use super::*;
    use crate::test_support::*;

    /// A master key and a key of each other usage that it signed.
    fn keys(master: &TestKey) -> [Value; 3] {
        let sub = |usage| master.sign("@a:x", TestKey::cross_signing().as_signing_key("@a:x", usage));
        [master.as_signing_key("@a:x", MASTER), sub(SELF_SIGNING), sub(USER_SIGNING)]
    }

    fn upload(
        master: Option<&Value>,
        self_signing: Option<&Value>,
        user_signing: Option<&Value>,
    ) -> SigningKeysUpload {
        SigningKeysUpload {
            master_key: master.map(typed),
            self_signing_key: self_signing.map(typed),
            user_signing_key: user_signing.map(typed),
        }
    }

    async fn usages(services: &Services, asker: &UserId) -> usize {
        let keys = services
            .devices
            .query_keys(Some(asker), &[(alice_id().to_owned(), vec![])].into())
            .await
            .unwrap();
        keys.master_keys.len() + keys.self_signing_keys.len() + keys.user_signing_keys.len()
    }

    #[tokio::test]
    async fn first_keys_and_the_same_keys_again_need_no_proof_but_new_ones_do() {
        let services = services().await;
        let [master, own, user] = keys(&TestKey::cross_signing());
        let all = upload(Some(&master), Some(&own), Some(&user));
        for _ in 0..2 {
            services.devices.upload_signing_keys(alice_id(), &all, false).await.unwrap();
        }
        assert_eq!(usages(&services, alice_id()).await, 3);
        assert_eq!(usages(&services, user_id!("@b:x")).await, 2, "others don't see the user-signing key");

        let [other, ..] = keys(&TestKey::cross_signing());
        let other = upload(Some(&other), None, None);
        let refused = services.devices.upload_signing_keys(alice_id(), &other, false).await;
        assert!(matches!(refused, Err(KeyError::AuthenticationRequired)));
        services.devices.upload_signing_keys(alice_id(), &other, true).await.unwrap();
        assert_eq!(usages(&services, alice_id()).await, 1, "what the former master key signed is gone");
    }

    #[tokio::test]
    async fn others_are_told_of_keys_that_they_see_and_nobody_of_the_same_keys_again() {
        let services = services().await;
        let master = TestKey::cross_signing();
        let [master_json, own, user] = keys(&master);
        let steps = [
            (upload(Some(&master_json), Some(&own), None), true, true),
            (upload(Some(&master_json), Some(&own), None), false, false),
            (upload(None, None, Some(&user)), true, false),
        ];
        for (step, alice_told, bob_told) in steps {
            let before = (*services.devices.feed().position()).clone();
            services.devices.upload_signing_keys(alice_id(), &step, true).await.unwrap();
            let now = services.devices.feed().position();
            for (asker, told) in [(alice_id(), alice_told), (user_id!("@b:x"), bob_told)] {
                let changed = services.devices.changed_since(asker, &before, &now, |_| true).await.unwrap();
                assert_eq!(!changed.is_empty(), told, "{asker}");
            }
        }
    }

    #[tokio::test]
    async fn keys_that_prove_nothing_are_refused() {
        let services = services().await;
        let (master, stranger) = (TestKey::cross_signing(), TestKey::cross_signing());
        let [master_json, own, _] = keys(&master);
        let [_, foreign, _] = keys(&stranger);
        let check = async |upload: SigningKeysUpload| {
            services.devices.upload_signing_keys(alice_id(), &upload, true).await.unwrap_err().to_string()
        };
        assert_eq!(check(upload(None, Some(&own), None)).await, KeyError::NoMasterKey.to_string());
        let unsigned = upload(Some(&master_json), Some(&foreign), None);
        assert_eq!(check(unsigned).await, "The key is not signed by the master key");
        let misused = upload(Some(&own), None, None);
        assert_eq!(check(misused).await, "The master key is not for this usage");
        let bobs = master.as_signing_key("@b:x", MASTER);
        assert_eq!(check(upload(Some(&bobs), None, None)).await, KeyError::NotYours.to_string());
        for bad in [
            json!({}),
            json!({ "ed25519:A": "B" }),
            json!({ "ed25519:AAAA": "AAAA" }),
            json!({ (master.key_id()): master.public(), "ed25519:A": "A" }),
        ] {
            let mut key = master_json.clone();
            key["keys"] = bad;
            let error =
                services.devices.upload_signing_keys(alice_id(), &upload(Some(&key), None, None), true).await;
            assert!(matches!(error, Err(KeyError::Malformed(_))), "{key}");
        }
        services.add_device(alice_id(), <&ruma::DeviceId>::from(master.public().as_str())).await;
        assert_eq!(check(upload(Some(&master_json), None, None)).await, KeyError::KeyIdInUse.to_string());
        assert_eq!(usages(&services, alice_id()).await, 0);
    }
}
