//! Redactions of other servers, which may come before what they redact
//! ([spec](https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions)).

use myelin_storage::relations;

use crate::{EventNid, EventRow, RoomError, history::History};

/// A redaction takes the content of its target, now or when that comes.
pub(super) async fn redact(history: History<'_>, row: &mut EventRow) -> Result<(), RoomError> {
    let Some(target_id) = row.pdu.redacts().cloned() else { return Ok(()) };
    let target = match history.room.recent.get(&target_id) {
        Some(recent) => Some((recent.pdu.clone(), recent.nid)),
        None => history
            .list_entries(std::slice::from_ref(&target_id))
            .await?
            .remove(&target_id)
            .map(|entry| (entry.event.pdu, entry.event.nid)),
    };
    match target {
        Some((target, nid)) => row.redacts = history.room.redaction(&row.pdu, &target, nid)?,
        None => row.writing.awaits_target = true,
    }
    Ok(())
}

/// The event of a row loses its content if a redaction was here first.
pub(super) async fn be_redacted(history: History<'_>, row: &mut EventRow) -> Result<(), RoomError> {
    let target = row.pdu.event_id().clone();
    let client = history.client().await?;
    let waiting = relations::list_pending_redactions(&client, history.room.nid.0, &[target.as_str()]).await?;
    drop(client);
    let nids: Vec<i64> = waiting.iter().map(|(_, nid)| *nid).collect();
    for (nid, redaction) in history.list_by_nid(&nids).await? {
        if let Some(redacted) = history.room.redaction(&redaction.pdu, &row.pdu, row.nid)? {
            row.pdu = redacted.pdu;
            row.writing.redacted_by = Some(EventNid(nid));
            break;
        }
    }
    Ok(())
}
