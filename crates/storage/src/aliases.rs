//! `room_aliases`: the aliases of this server.

use crate::{GenericClient, Result, Row, Write, execute, query, query_opt};

/// A row of `room_aliases`, with the id of its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRow {
    /// The alias.
    pub alias: String,
    /// The room that it points at.
    pub room_nid: i64,
    /// The id of that room.
    pub room_id: String,
    /// The user who made it.
    pub creator: String,
}

impl From<&Row> for AliasRow {
    fn from(row: &Row) -> Self {
        Self { alias: row.get(0), room_nid: row.get(1), room_id: row.get(2), creator: row.get(3) }
    }
}

/// Adds an alias; `false` if it is taken.
pub async fn insert_alias(
    db: &impl GenericClient,
    alias: &str,
    room_nid: i64,
    creator: &str,
) -> Result<bool> {
    const SQL: &str = "
        INSERT INTO room_aliases (alias, room_nid, creator) VALUES ($1, $2, $3) ON CONFLICT (alias) DO NOTHING";
    Ok(execute(db, SQL, &[&alias, &room_nid, &creator]).await? == 1)
}

/// Adds the alias of a new room.
///
/// # Errors
/// A unique violation if it is taken.
pub async fn insert_alias_of_new(db: &impl Write, alias: &str, room_nid: i64, creator: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO room_aliases (alias, room_nid, creator) VALUES ($1, $2, $3)";
    db.write(SQL, &[&alias, &room_nid, &creator]).await
}

/// The alias of that name.
pub async fn get_alias(db: &impl GenericClient, alias: &str) -> Result<Option<AliasRow>> {
    const SQL: &str = "
        SELECT alias, room_nid, room_id, creator FROM room_aliases JOIN rooms USING (room_nid) WHERE alias = $1";
    Ok(query_opt(db, SQL, &[&alias]).await?.as_ref().map(AliasRow::from))
}

/// The aliases of a room, by name.
pub async fn list_aliases(db: &impl GenericClient, room_nid: i64) -> Result<Vec<AliasRow>> {
    const SQL: &str = "
        SELECT alias, room_nid, room_id, creator FROM room_aliases JOIN rooms USING (room_nid)
         WHERE room_nid = $1 ORDER BY alias";
    Ok(query(db, SQL, &[&room_nid]).await?.iter().map(AliasRow::from).collect())
}

/// Takes an alias away; `false` if there is none.
pub async fn delete_alias(db: &impl GenericClient, alias: &str) -> Result<bool> {
    Ok(execute(db, "DELETE FROM room_aliases WHERE alias = $1", &[&alias]).await? == 1)
}

/// Points all aliases of a room at another.
pub async fn move_aliases(db: &impl GenericClient, from: i64, to: i64) -> Result<()> {
    execute(db, "UPDATE room_aliases SET room_nid = $2 WHERE room_nid = $1", &[&from, &to]).await?;
    Ok(())
}
