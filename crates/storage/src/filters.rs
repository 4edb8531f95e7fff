//! `filters`: filter definitions by user and number. They never change.

use ruma::UserId;

use crate::{GenericClient, Result, StorageError, query_opt};

/// The number of a filter, which is added unless the user has the same already. `hash` is of `filter`.
pub async fn intern_filter(db: &impl GenericClient, user: &UserId, filter: &str, hash: &[u8]) -> Result<i64> {
    const SQL: &str = "
        WITH known AS (SELECT filter_id FROM filters WHERE user_id = $1 AND filter_hash = $3),
        added AS (
            INSERT INTO filters (user_id, filter_id, filter_hash, filter)
            SELECT $1, (SELECT coalesce(max(filter_id) + 1, 0) FROM filters WHERE user_id = $1), $3, $2
             WHERE NOT EXISTS (SELECT FROM known)
                ON CONFLICT DO NOTHING
            RETURNING filter_id)
        SELECT filter_id FROM known UNION ALL SELECT filter_id FROM added";
    // Another filter of the user may have got the same number at the same moment.
    for _ in 0..10 {
        if let Some(row) = query_opt(db, SQL, &[&user.as_str(), &filter, &hash]).await? {
            return Ok(row.try_get(0)?);
        }
    }
    Err(StorageError::Inconsistent("a filter got no number in ten attempts".to_owned()))
}

/// A filter by its number.
pub async fn get_filter(db: &impl GenericClient, user: &UserId, filter_id: i64) -> Result<Option<String>> {
    const SQL: &str = "SELECT filter FROM filters WHERE user_id = $1 AND filter_id = $2";
    let row = query_opt(db, SQL, &[&user.as_str(), &filter_id]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, bob, database};

    #[tokio::test]
    async fn equal_filters_of_a_user_are_one() {
        let (_test, db) = database().await;
        assert_eq!(intern_filter(&db, alice(), "{}", b"a").await.unwrap(), 0);
        assert_eq!(intern_filter(&db, alice(), "{\"n\":1}", b"b").await.unwrap(), 1);
        assert_eq!(intern_filter(&db, alice(), "{}", b"a").await.unwrap(), 0);
        assert_eq!(
            intern_filter(&db, bob(), "{\"n\":1}", b"b").await.unwrap(),
            0,
            "users count for themselves"
        );
        assert_eq!(get_filter(&db, alice(), 1).await.unwrap().as_deref(), Some("{\"n\":1}"));
        assert_eq!(get_filter(&db, alice(), 2).await.unwrap(), None);
    }
}
