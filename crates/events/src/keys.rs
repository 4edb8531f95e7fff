//! The key that a server signs with, and signatures on JSON objects of any kind.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerSigningKeyId, ServerSigningKeyId,
    SigningKeyAlgorithm, SigningKeyId,
    serde::Base64,
    signatures::{Ed25519KeyPair, KeyPair as _, PublicKeySet, to_canonical_json_string_for_signing},
};

/// Reads base64 as lenient as key files ask for.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The DER in front of the 32 bytes of an Ed25519 seed that makes it a PKCS#8 document (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2E, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A line that is no signing key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// There are not three words.
    #[error("a signing key is a line of three words: `ed25519`, a version and the seed in base64")]
    Format,
    /// The key is of another algorithm.
    #[error("the algorithm of a signing key is `ed25519`, not `{0}`")]
    Algorithm(String),
    /// The version holds characters that a key id can't have.
    #[error("the version of a signing key holds only letters, digits and underscores, unlike `{0}`")]
    Version(String),
    /// The seed is not 32 bytes of base64.
    #[error("the seed of a signing key is 32 bytes of base64")]
    Seed,
}

/// A server's Ed25519 key with its id ([spec](https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys)).
pub struct ServerSigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    key_id: OwnedServerSigningKeyId,
}

impl ServerSigningKey {
    /// The key with this seed; `version` is the part of the key id behind `ed25519:`.
    ///
    /// # Errors
    ///
    /// If the version has characters that a key id can't have.
    pub fn from_seed(version: &str, seed: [u8; 32]) -> Result<Self, SigningKeyError> {
        let is_valid =
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let bad_version = || SigningKeyError::Version(version.to_owned());
        if !is_valid {
            return Err(bad_version());
        }
        let key_id = ServerSigningKeyId::parse(format!("ed25519:{version}")).map_err(|_| bad_version())?;
        let document = [PKCS8_PREFIX.as_slice(), &seed].concat();
        let pair =
            Ed25519KeyPair::from_der(&document, version.to_owned()).map_err(|_| SigningKeyError::Seed)?;
        Ok(Self { pair, seed, key_id })
    }

    /// A new key, named `a_` and four letters, as is the custom.
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        let mut seed = [0; 32];
        random.fill_bytes(&mut seed);
        let letters = (0..4).map(|_| char::from(b'a' + (random.next_u32() % 26) as u8));
        let version: String = "a_".chars().chain(letters).collect();
        Self::from_seed(&version, seed).expect("letters are a valid version, and any 32 bytes are a seed")
    }

    /// Reads the content of a `signing.key` file, as Synapse writes it: the first line that is not empty or a comment.
    ///
    /// # Errors
    ///
    /// If there is no such line, or what it says is no Ed25519 key.
    pub fn parse(file: &str) -> Result<Self, SigningKeyError> {
        let line = file
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .ok_or(SigningKeyError::Format)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [algorithm, version, seed] = words[..] else { return Err(SigningKeyError::Format) };
        if algorithm != "ed25519" {
            return Err(SigningKeyError::Algorithm(algorithm.to_owned()));
        }
        let seed =
            LENIENT.decode(seed).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(SigningKeyError::Seed)?;
        Self::from_seed(version, seed)
    }

    /// The content of a `signing.key` file that holds this key. It is a secret.
    pub fn to_file(&self) -> String {
        format!("ed25519 {} {}\n", self.version(), STANDARD_NO_PAD.encode(self.seed))
    }

    /// The id of this key, `ed25519:a_abcd`.
    pub fn key_id(&self) -> &ServerSigningKeyId {
        &self.key_id
    }

    /// The part of the key id behind the algorithm.
    pub fn version(&self) -> &str {
        self.pair.version()
    }

    /// The public key, which `/_matrix/key/v2/server` publishes.
    pub fn public_key(&self) -> Base64 {
        Base64::new(self.pair.public_key().to_vec())
    }

    /// The public key as a set with one entry, as [`verify_json`] takes it.
    pub fn public_key_set(&self) -> PublicKeySet {
        PublicKeySet::from([(self.key_id.to_string(), self.public_key())])
    }

    /// Signs bytes: the signature in unpadded base64.
    fn sign_bytes(&self, message: &[u8]) -> String {
        self.pair.sign(message).base64()
    }

    /// [Signs a JSON object](https://spec.matrix.org/v1.19/appendices/#signing-details) in the name of `entity`
    /// (our server name), keeping the signatures it has.
    ///
    /// # Errors
    ///
    /// If the object is no canonical JSON, or its `signatures` are none.
    pub fn sign_json(&self, entity: &str, object: &mut CanonicalJsonObject) -> Result<(), SignatureError> {
        let json = to_canonical_json_string_for_signing(object)
            .map_err(|error| SignatureError::Malformed(error.to_string()))?;
        self.insert_signature(entity, &json, object)
    }

    /// Signs `text`, and writes the signature into `object`.
    pub(crate) fn insert_signature(
        &self,
        entity: &str,
        text: &str,
        object: &mut CanonicalJsonObject,
    ) -> Result<(), SignatureError> {
        let signatures = object_entry(object, "signatures")?;
        object_entry(signatures, entity)?
            .insert(self.key_id.to_string(), self.sign_bytes(text.as_bytes()).into());
        Ok(())
    }
}

impl fmt::Debug for ServerSigningKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerSigningKey").field(&self.key_id).finish()
    }
}

fn object_entry<'a>(
    object: &'a mut CanonicalJsonObject,
    field: &str,
) -> Result<&'a mut CanonicalJsonObject, SignatureError> {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    match object.entry(field.to_owned()).or_insert_with(empty) {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(SignatureError::Malformed("`signatures` is not an object of objects".to_owned())),
    }
}

/// Why an object doesn't count as signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The object or its signatures don't have the form they must have.
    #[error("malformed: {0}")]
    Malformed(String),
    /// No signature of the entity was made with one of the keys.
    #[error("not signed by a known key of {0}")]
    Missing(String),
    /// A signature is wrong.
    #[error("wrong signature {key_id} of {entity}")]
    Wrong {
        /// The server, user or device that should have signed.
        entity: String,
        /// The key that it should have signed with.
        key_id: String,
    },
}

/// [Checks](https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature) that `entity` signed this object.
///
/// Signatures with keys that are not among `keys` are ignored; of the others there must be at least one, and all of
/// them must be right. `keys` maps key ids (`ed25519:abc`) to public keys.
///
/// # Errors
///
/// See [`SignatureError`].
pub fn verify_json(
    object: &CanonicalJsonObject,
    entity: &str,
    keys: &PublicKeySet,
) -> Result<(), SignatureError> {
    let json = to_canonical_json_string_for_signing(object)
        .map_err(|error| SignatureError::Malformed(error.to_string()))?;
    verify_text(&json, object.get("signatures"), entity, keys)
}

/// Checks that `entity` signed this text, as the object of `signatures` claims.
pub(crate) fn verify_text(
    text: &str,
    signatures: Option<&CanonicalJsonValue>,
    entity: &str,
    keys: &PublicKeySet,
) -> Result<(), SignatureError> {
    let missing = || SignatureError::Missing(entity.to_owned());
    let signatures =
        signatures.and_then(|all| all.as_object()?.get(entity)?.as_object()).ok_or_else(missing)?;
    let mut is_signed = false;
    for (key_id, signature) in signatures {
        let Some(public_key) = keys.get(key_id) else { continue };
        let is_ed25519 = <&SigningKeyId<ruma::AnyKeyName>>::try_from(key_id.as_str())
            .is_ok_and(|id| id.algorithm() == SigningKeyAlgorithm::Ed25519);
        if !is_ed25519 {
            continue;
        }
        let wrong = || SignatureError::Wrong { entity: entity.to_owned(), key_id: key_id.clone() };
        let signature = signature.as_str().and_then(|text| LENIENT.decode(text).ok()).ok_or_else(wrong)?;
        ruma::signatures::verify_canonical_json_bytes(
            &SigningKeyAlgorithm::Ed25519,
            public_key.as_bytes(),
            &signature,
            text.as_bytes(),
        )
        .map_err(|_| wrong())?;
        is_signed = true;
    }
    if is_signed { Ok(()) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the [test vectors](https://spec.matrix.org/v1.19/appendices/#cryptographic-test-vectors).
    const SPEC_KEY: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";

    fn object(json: &str) -> CanonicalJsonObject {
        serde_json::from_str(json).unwrap()
    }

    #[track_caller]
    fn check_signing(json: &str, expected: &str) {
        let key = ServerSigningKey::parse(SPEC_KEY).unwrap();
        let mut object = object(json);
        key.sign_json("domain", &mut object).unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), expected);
        verify_json(&object, "domain", &key.public_key_set()).unwrap();
    }

    #[test]
    fn objects_are_signed_as_the_test_vectors_of_the_specification() {
        check_signing(
            "{}",
            r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#,
        );
        check_signing(
            r#"{"two":"Two","one":1}"#,
            r#"{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}"#,
        );
    }

    #[test]
    fn a_key_file_is_written_as_it_was_read() {
        let key = ServerSigningKey::parse(SPEC_KEY).unwrap();
        assert_eq!(key.key_id().as_str(), "ed25519:1");
        assert_eq!(ServerSigningKey::parse(&key.to_file()).unwrap().public_key(), key.public_key());
        assert_eq!(format!("{key:?}"), r#"ServerSigningKey("ed25519:1")"#);
    }

    #[test]
    fn a_generated_key_can_be_read_back() {
        let key = ServerSigningKey::generate(&mut rand::rng());
        let again = ServerSigningKey::parse(&key.to_file()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.key_id(), key.key_id());
    }

    #[test]
    fn bad_key_files_are_refused_with_a_reason() {
        for (file, expected) in [
            ("", SigningKeyError::Format),
            ("ed25519 1", SigningKeyError::Format),
            (
                "rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
                SigningKeyError::Algorithm("rsa".to_owned()),
            ),
            (
                "ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
                SigningKeyError::Version("a:b".to_owned()),
            ),
            ("ed25519 1 YJDB", SigningKeyError::Seed),
        ] {
            assert_eq!(ServerSigningKey::parse(file).unwrap_err(), expected, "{file}");
        }
    }

    #[test]
    fn what_is_changed_or_signed_by_others_is_refused() {
        let key = ServerSigningKey::parse(SPEC_KEY).unwrap();
        let mut signed = object(r#"{"one":1}"#);
        key.sign_json("domain", &mut signed).unwrap();
        let keys = key.public_key_set();
        assert_eq!(verify_json(&signed, "other", &keys), Err(SignatureError::Missing("other".to_owned())));
        assert_eq!(
            verify_json(&signed, "domain", &PublicKeySet::new()),
            Err(SignatureError::Missing("domain".to_owned()))
        );
        signed.insert("one".to_owned(), CanonicalJsonValue::Bool(true));
        assert!(matches!(verify_json(&signed, "domain", &keys), Err(SignatureError::Wrong { .. })));
        signed.insert("signatures".to_owned(), CanonicalJsonValue::Bool(true));
        assert!(matches!(verify_json(&signed, "domain", &keys), Err(SignatureError::Missing(_))));
    }
}
