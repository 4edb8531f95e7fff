//! `cross_signing_keys` and `key_signatures`.

use crate::{GenericClient, Result, Row, execute, query};

/// A cross-signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossSigningKeyRow {
    /// Whose key it is.
    pub user_id: String,
    /// `master`, `self_signing` or `user_signing`.
    pub usage: String,
    /// The public part, in unpadded base64.
    pub public_key: String,
    /// The key as it was uploaded.
    pub key_json: String,
}

/// A signature on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySignatureRow {
    /// Whose key is signed.
    pub user_id: String,
    /// The signed key: a device's id, or the public part of a master key.
    pub key_id: String,
    /// Who signed.
    pub signer_user_id: String,
    /// With which key: `ed25519:<device id or public key>`.
    pub signer_key_id: String,
    /// The signature, in unpadded base64.
    pub signature: String,
}

/// The cross-signing keys of some users.
pub async fn list_cross_signing_keys(
    db: &impl GenericClient,
    user_ids: &[&str],
) -> Result<Vec<CrossSigningKeyRow>> {
    const SQL: &str = "
        SELECT user_id, usage, public_key, key_json FROM cross_signing_keys WHERE user_id = ANY ($1)";
    let rows = query(db, SQL, &[&user_ids]).await?;
    Ok(rows
        .iter()
        .map(|row| CrossSigningKeyRow {
            user_id: row.get(0),
            usage: row.get(1),
            public_key: row.get(2),
            key_json: row.get(3),
        })
        .collect())
}

/// Stores a cross-signing key, in place of the user's earlier one of that usage.
pub async fn set_cross_signing_key(db: &impl GenericClient, key: &CrossSigningKeyRow) -> Result<()> {
    const SQL: &str = "
        INSERT INTO cross_signing_keys (user_id, usage, public_key, key_json) VALUES ($1, $2, $3, $4)
            ON CONFLICT (user_id, usage)
            DO UPDATE SET public_key = excluded.public_key, key_json = excluded.key_json";
    execute(db, SQL, &[&key.user_id, &key.usage, &key.public_key, &key.key_json]).await?;
    Ok(())
}

/// Deletes a user's cross-signing key of some usage.
pub async fn delete_cross_signing_key(db: &impl GenericClient, user_id: &str, usage: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = $2";
    execute(db, SQL, &[&user_id, &usage]).await?;
    Ok(())
}

/// The signatures that some users made on their own keys: those that everybody sees
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security)).
pub async fn list_own_signatures(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<KeySignatureRow>> {
    const SQL: &str = "
        SELECT user_id, key_id, signer_user_id, signer_key_id, signature FROM key_signatures
         WHERE user_id = ANY ($1) AND signer_user_id = user_id";
    Ok(query(db, SQL, &[&user_ids]).await?.iter().map(signature_row).collect())
}

/// The signatures that a user made on the keys of others: nobody else sees them.
pub async fn list_signatures_on_others(
    db: &impl GenericClient,
    signer_user_id: &str,
) -> Result<Vec<KeySignatureRow>> {
    const SQL: &str = "
        SELECT user_id, key_id, signer_user_id, signer_key_id, signature FROM key_signatures
         WHERE signer_user_id = $1 AND user_id <> signer_user_id";
    Ok(query(db, SQL, &[&signer_user_id]).await?.iter().map(signature_row).collect())
}

fn signature_row(row: &Row) -> KeySignatureRow {
    KeySignatureRow {
        user_id: row.get(0),
        key_id: row.get(1),
        signer_user_id: row.get(2),
        signer_key_id: row.get(3),
        signature: row.get(4),
    }
}

/// Stores a signature; `false` if it was there already.
pub async fn set_signature(db: &impl GenericClient, row: &KeySignatureRow) -> Result<bool> {
    const SQL: &str = "
        INSERT INTO key_signatures AS old (user_id, key_id, signer_user_id, signer_key_id, signature)
        VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (user_id, key_id, signer_user_id, signer_key_id)
            DO UPDATE SET signature = excluded.signature WHERE old.signature <> excluded.signature";
    let KeySignatureRow { user_id, key_id, signer_user_id, signer_key_id, signature } = row;
    Ok(execute(db, SQL, &[user_id, key_id, signer_user_id, signer_key_id, signature]).await? > 0)
}

/// Deletes all signatures on a key, which is not the user's any more.
pub async fn delete_signatures(db: &impl GenericClient, user_id: &str, key_id: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM key_signatures WHERE user_id = $1 AND key_id = $2";
    execute(db, SQL, &[&user_id, &key_id]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    #[tokio::test]
    async fn a_usage_has_one_key() {
        let db = TestClient::new().await;
        let key = |public_key: &str| CrossSigningKeyRow {
            user_id: "@a:x".to_owned(),
            usage: "master".to_owned(),
            public_key: public_key.to_owned(),
            key_json: "{}".to_owned(),
        };
        set_cross_signing_key(&*db, &key("old")).await.unwrap();
        set_cross_signing_key(&*db, &key("new")).await.unwrap();
        assert_eq!(list_cross_signing_keys(&*db, &["@a:x", "@b:x"]).await.unwrap(), [key("new")]);
        delete_cross_signing_key(&*db, "@a:x", "master").await.unwrap();
        assert!(list_cross_signing_keys(&*db, &["@a:x"]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn signatures_on_ones_own_keys_are_apart_from_those_on_others() {
        let db = TestClient::new().await;
        let by = |signer: &str| KeySignatureRow {
            user_id: "@a:x".to_owned(),
            key_id: "MASTER".to_owned(),
            signer_user_id: signer.to_owned(),
            signer_key_id: "ed25519:K".to_owned(),
            signature: "sig".to_owned(),
        };
        for signer in ["@a:x", "@b:x", "@c:x"] {
            assert!(set_signature(&*db, &by(signer)).await.unwrap());
            assert!(!set_signature(&*db, &by(signer)).await.unwrap());
        }
        assert_eq!(list_own_signatures(&*db, &["@a:x", "@b:x"]).await.unwrap(), [by("@a:x")]);
        assert_eq!(list_signatures_on_others(&*db, "@b:x").await.unwrap(), [by("@b:x")]);
        assert!(list_signatures_on_others(&*db, "@a:x").await.unwrap().is_empty());
        delete_signatures(&*db, "@a:x", "MASTER").await.unwrap();
        assert!(list_own_signatures(&*db, &["@a:x"]).await.unwrap().is_empty());
        assert!(list_signatures_on_others(&*db, "@b:x").await.unwrap().is_empty());
    }
}
