//! Writing rows of the stream: few statements for a batch, however long it is.

use std::collections::BTreeMap;

use myelin_push::PushBits;
use myelin_replication::{Stamped, Stream, Topic};
use myelin_storage::{
    Client, Result, Write, aliases, event_graph, events, memberships, relations,
    rooms::{self, RoomRow},
    state,
};
use myelin_types::{Position, StreamId};
use ruma::events::{StateEventType, room::member::MembershipState};

use super::{Base, DeltaRef, EventRow, EventStream, StateBefore, since};
use crate::RequestId;

impl Stream for EventStream {
    const NAME: &'static str = "events";

    type Row = EventRow;

    /// The room. States of rooms are read by whom the room is no concern of otherwise, and members come and go.
    fn about(row: &EventRow) -> Option<Topic> {
        Some(Topic { of: row.room_nid.0, for_all: !row.state_changes.is_empty() || row.redacts.is_some() })
    }

    async fn persist(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
        for row in rows {
            insert_room(db, row).await?;
        }
        insert_events(db, rows).await?;
        change_state(db, rows).await?;
        relate(db, rows).await?;
        move_backward_extremities(db, rows).await?;
        redact(db, rows).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<EventRow>>> {
        since::read(client, after, upto, limit).await
    }
}

/// The membership as `memberships` has it; `None` for a membership that nobody knows.
pub(crate) fn membership_number(membership: &MembershipState) -> Option<i16> {
    match membership {
        MembershipState::Leave => Some(0),
        MembershipState::Join => Some(1),
        MembershipState::Invite => Some(2),
        MembershipState::Knock => Some(3),
        MembershipState::Ban => Some(4),
        _ => None,
    }
}

async fn insert_room(db: &impl Write, row: &Stamped<EventRow>) -> Result<()> {
    let Some(new) = &row.row.writing.new_room else { return Ok(()) };
    let room_nid = row.row.room_nid.0;
    let room = RoomRow {
        room_nid,
        room_id: row.row.pdu.room_id().to_string(),
        room_version: new.room_version.to_string(),
        is_public: new.is_public,
        is_blocked: false,
    };
    rooms::insert_room(db, &room, new.request.as_ref().map(RequestId::as_str)).await?;
    match &new.alias {
        Some((alias, creator)) => {
            aliases::insert_alias_of_new(db, alias.as_str(), room_nid, creator.as_str()).await
        }
        None => Ok(()),
    }
}

/// What has to be made of a row before it can be borrowed as columns.
struct Texts {
    push_exceptions: Option<String>,
    heads: Option<String>,
}

async fn insert_events(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
    let texts: Vec<Texts> = rows.iter().map(|row| texts(&row.row)).collect();
    let (mut new, mut promoted) = (events::NewEvents::default(), events::NewEvents::default());
    for (stamped, texts) in rows.iter().zip(&texts) {
        let columns = if stamped.row.writing.is_promoted { &mut promoted } else { &mut new };
        columns.push(&new_event(stamped, texts));
        if let StateBefore::Mainline { delta: Some(DeltaRef::New(delta)), .. } = &stamped.row.writing.before {
            state::insert_delta(db, stamped.row.room_nid.0, stamped.row.nid.0, delta).await?;
        }
    }
    if !new.is_empty() {
        events::insert_events(db, &new).await?;
    }
    if !promoted.is_empty() {
        events::promote_outliers(db, &promoted).await?;
    }
    Ok(())
}

fn texts(row: &EventRow) -> Texts {
    let json = "ids and numbers are JSON";
    let exceptions: BTreeMap<&str, PushBits> =
        row.push.exceptions.iter().map(|(user, bits)| (user.as_str(), *bits)).collect();
    Texts {
        push_exceptions: (!exceptions.is_empty()).then(|| serde_json::to_string(&exceptions).expect(json)),
        heads: row.writing.heads.as_ref().map(|heads| serde_json::to_string(heads).expect(json)),
    }
}

fn new_event<'a>(stamped: &'a Stamped<EventRow>, texts: &'a Texts) -> events::NewEvent<'a> {
    let Stamped { id, writer, row } = stamped;
    let (state_base, state_delta) = match &row.writing.before {
        StateBefore::Current if row.timeline => (None, None),
        StateBefore::Current => (Some(StreamId(id.0 - 1)), None),
        StateBefore::Unknown => (None, None),
        StateBefore::Mainline { base, delta } => {
            let base = match base {
                Base::At(position) => *position,
                Base::BeforeRow => StreamId(id.0 - 1),
                Base::Row => *id,
            };
            let delta = delta.as_ref().map(|delta| match delta {
                DeltaRef::Stored(delta) => *delta,
                DeltaRef::New(_) => row.nid.0,
            });
            (Some(base), delta)
        }
    };
    events::NewEvent {
        room_nid: row.room_nid.0,
        event_nid: row.nid.0,
        pos: row.timeline.then_some(*id),
        depth: i64::try_from(row.pdu.depth()).unwrap_or(i64::MAX),
        sender_sid: row.writing.sender_sid,
        type_sid: row.writing.type_sid,
        state_key_sid: row.writing.key_sid,
        origin_server_ts: ruma::Int::from(row.pdu.origin_server_ts().0).into(),
        state_base,
        state_delta,
        writer: *writer,
        flags: row.writing.flags,
        push: row.push.default.0,
        event_id: row.pdu.event_id().as_str(),
        push_exceptions: texts.push_exceptions.as_deref(),
        thread_id: row.thread_id.as_ref().map(|id| id.as_str()),
        device_id: row.sent_by.as_ref().map(|(device_id, _)| device_id.as_str()),
        txn_id: row.sent_by.as_ref().map(|(_, txn_id)| txn_id.as_str()),
        heads: texts.heads.as_deref(),
        redacted_by: row.writing.redacted_by.map(|nid| nid.0),
        json: row.pdu.json(),
    }
}

async fn change_state(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
    let mut states = state::StateChanges::default();
    let mut members = memberships::NewMemberships::default();
    for Stamped { id, writer, row } in rows {
        for change in &row.state_changes {
            let numbers = &change.numbers;
            let event_nid = change.event.is_some().then_some(numbers.nid.0);
            let room_nid = row.room_nid.0;
            let (type_sid, key_sid) = (numbers.type_sid, numbers.key_sid);
            let replaces = change.replaced.is_some();
            states.push(*id, &state::NewState { room_nid, type_sid, key_sid, event_nid, replaces });
            if change.event_type != StateEventType::RoomMember {
                continue;
            }
            let membership = myelin_events::member::membership_of(change.event.as_deref());
            let Some(membership) = membership_number(&membership) else { continue };
            members.push(&memberships::NewMembership {
                user_sid: key_sid,
                room_nid,
                membership,
                event_nid: numbers.nid.0,
                pos: *id,
                writer: *writer,
                sender_sid: numbers.sender_sid,
            });
        }
    }
    if !states.is_empty() {
        state::change_state(db, &states).await?;
    }
    if !members.is_empty() {
        memberships::upsert_memberships(db, &members).await?;
    }
    Ok(())
}

async fn relate(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
    let mut new = relations::NewRelations::default();
    for Stamped { id, row, .. } in rows {
        let relation = relations::NewRelation {
            room_nid: row.room_nid.0,
            parent_id: "",
            event_nid: row.nid.0,
            pos: row.timeline.then_some(*id),
            rel_type: "",
            type_sid: row.writing.type_sid,
            sender_sid: row.writing.sender_sid,
            key: None,
        };
        if let Some(related) = row.relation.as_ref().filter(|_| row.timeline) {
            let (parent_id, rel_type) = (related.event_id.as_str(), &*related.rel_type);
            new.push(&relations::NewRelation {
                parent_id,
                rel_type,
                key: related.key.as_deref(),
                ..relation
            });
        }
        if let Some(target) = row.pdu.redacts().filter(|_| row.writing.awaits_target) {
            let (parent_id, rel_type) = (target.as_str(), relations::PENDING_REDACTION);
            new.push(&relations::NewRelation { parent_id, rel_type, ..relation });
        }
    }
    match new.is_empty() {
        true => Ok(()),
        false => relations::insert_relations(db, &new).await,
    }
}

async fn move_backward_extremities(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
    let closed: Vec<&EventRow> =
        rows.iter().map(|row| &row.row).filter(|row| row.writing.closes_gap).collect();
    let missing: Vec<(i64, &str)> = rows
        .iter()
        .flat_map(|row| row.row.writing.missing_prevs.iter().map(|id| (row.row.room_nid.0, id.as_str())))
        .collect();
    if !missing.is_empty() {
        let (rooms, ids): (Vec<i64>, Vec<&str>) = missing.into_iter().unzip();
        event_graph::insert_backward_extremities(db, &rooms, &ids).await?;
    }
    if !closed.is_empty() {
        let rooms: Vec<i64> = closed.iter().map(|row| row.room_nid.0).collect();
        let ids: Vec<&str> = closed.iter().map(|row| row.pdu.event_id().as_str()).collect();
        event_graph::delete_backward_extremities(db, &rooms, &ids).await?;
    }
    Ok(())
}

async fn redact(db: &impl Write, rows: &[Stamped<EventRow>]) -> Result<()> {
    let redactions: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.row.room_nid.0, row.row.nid.0, row.row.redacts.as_ref()?)))
        .collect();
    if !redactions.is_empty() {
        let rooms: Vec<i64> = redactions.iter().map(|(room, ..)| *room).collect();
        let targets: Vec<i64> = redactions.iter().map(|(.., redacted)| redacted.nid.0).collect();
        let json: Vec<&str> = redactions.iter().map(|(.., redacted)| redacted.pdu.json()).collect();
        let by: Vec<i64> = redactions.iter().map(|(_, redaction, _)| *redaction).collect();
        events::redact_events(db, &rooms, &targets, &json, &by).await?;
    }
    // What a redacted event pointed at counts no more, and a redaction that found its target waits no more.
    let parents = redactions.iter().filter_map(|(room, _, redacted)| {
        Some((*room, redacted.parent_id.as_ref()?.as_str(), redacted.nid.0))
    });
    let found = rows.iter().filter_map(|Stamped { row, .. }| {
        Some((row.room_nid.0, row.pdu.event_id().as_str(), row.writing.redacted_by?.0))
    });
    let over: Vec<_> = parents.chain(found).collect();
    if over.is_empty() {
        return Ok(());
    }
    let rooms: Vec<i64> = over.iter().map(|(room, ..)| *room).collect();
    let parents: Vec<&str> = over.iter().map(|(_, parent, _)| *parent).collect();
    let nids: Vec<i64> = over.iter().map(|(.., nid)| *nid).collect();
    relations::delete_relations(db, &rooms, &parents, &nids).await
}
