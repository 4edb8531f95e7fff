//! JSON that is signed ([spec](https://spec.matrix.org/v1.19/appendices/#signing-json)).

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use serde_json::value::RawValue;

/// A signed object, such as a key.
#[derive(Clone, Debug)]
pub(crate) struct SignedObject(CanonicalJsonObject);

impl SignedObject {
    /// Reads an object; `None` if it is none, or can't be signed because it has fractions in it.
    pub fn parse(json: &RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok().map(Self)
    }

    /// The signature of a user's key, which is named `ed25519:<device id or public key>`.
    pub fn signature(&self, user_id: &str, key_id: &str) -> Option<&str> {
        self.signatures_of(user_id)?.get(key_id)?.as_str()
    }

    /// All signatures of a user.
    pub fn signatures_of(&self, user_id: &str) -> Option<&CanonicalJsonObject> {
        self.0.get("signatures")?.as_object()?.get(user_id)?.as_object()
    }

    /// Whether the signature that a user's key is said to have made is there and good.
    pub fn verifies(&self, user_id: &str, key_id: &str, public_key: &str) -> bool {
        let Some(signature) = self.signature(user_id, key_id) else { return false };
        let Some(signature) = decode(signature) else { return false };
        let Some(public_key) = decode(public_key) else { return false };
        let Ok(signed) = to_canonical_json_string_for_signing(&self.0) else { return false };
        let algorithm = SigningKeyAlgorithm::Ed25519;
        verify_canonical_json_bytes(&algorithm, &public_key, &signature, signed.as_bytes()).is_ok()
    }

    /// Whether both say the same, whoever signed them.
    pub fn same_content(&self, other: &Self) -> bool {
        let content = |object: &CanonicalJsonObject| {
            let mut object = object.clone();
            object.remove("signatures");
            object.remove("unsigned");
            object
        };
        content(&self.0) == content(&other.0)
    }

    /// A text of the object.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// The public key of this name, out of the object's `keys`.
    pub fn public_key(&self, key_id: &str) -> Option<&str> {
        self.keys()?.get(key_id)?.as_str()
    }

    /// The object's `keys`.
    pub fn keys(&self) -> Option<&CanonicalJsonObject> {
        self.0.get("keys")?.as_object()
    }

    /// An array of texts of the object.
    pub fn texts_at(&self, key: &str) -> Vec<&str> {
        let array = self.0.get(key).and_then(CanonicalJsonValue::as_array).unwrap_or_default();
        array.iter().filter_map(CanonicalJsonValue::as_str).collect()
    }

    /// The object as canonical JSON.
    pub fn to_json(&self) -> String {
        CanonicalJsonValue::Object(self.0.clone()).to_string()
    }
}

/// Decodes base64, padded or not.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::<Standard>::parse(text).ok().map(Base64::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_support::{TestKey, raw};

    #[test]
    fn a_signature_is_good_only_for_what_was_signed_and_the_key_that_signed() {
        let (key, other) = (TestKey::new("K"), TestKey::new("K"));
        let signed = key.sign("@a:x", json!({ "keys": { "ed25519:K": "v" }, "unsigned": { "age": 1 } }));
        let object = SignedObject::parse(&raw(&signed)).unwrap();
        assert!(object.verifies("@a:x", "ed25519:K", &key.public()));
        assert!(!object.verifies("@a:x", "ed25519:K", &other.public()));
        assert!(!object.verifies("@b:x", "ed25519:K", &key.public()));
        assert!(!object.verifies("@a:x", "ed25519:K", "no base64!"));

        let mut forged = signed.clone();
        forged["keys"]["ed25519:K"] = "w".into();
        let forged = SignedObject::parse(&raw(&forged)).unwrap();
        assert!(!forged.verifies("@a:x", "ed25519:K", &key.public()));
        assert!(!forged.same_content(&object));

        let mut aged = signed;
        aged["unsigned"]["age"] = 2.into();
        let aged = SignedObject::parse(&raw(&aged)).unwrap();
        assert!(aged.verifies("@a:x", "ed25519:K", &key.public()), "unsigned is not signed");
        assert!(aged.same_content(&object));
    }

    #[test]
    fn what_is_no_object_or_has_fractions_is_refused() {
        for json in [json!([]), json!("text"), json!({ "a": 1.5 })] {
            assert!(SignedObject::parse(&raw(&json)).is_none(), "{json}");
        }
    }
}
