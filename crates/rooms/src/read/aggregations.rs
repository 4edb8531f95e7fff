//! What points at events, bundled with them
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events)).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{Pdu, RelatesTo, raw_json::ObjectWriter};
use myelin_storage::{
    Client,
    room_reads::{self, EventRef, Related, RelationSummary, TimelineEvent},
};
use ruma::{OwnedEventId, RoomId, events::TimelineEventType};
use serde::Deserialize;

use super::{
    Result, RoomReader, Viewer,
    render::{Details, Shown, event_refs},
    view::View,
};
use crate::RoomNid;

/// References that an event is bundled with at most.
const MAX_REFERENCES: i64 = 100;

type EventKey = (i64, String);

/// All that points at some events, as it was read.
#[derive(Default)]
struct Children {
    threads: HashMap<EventKey, RelationSummary>,
    edits: HashMap<EventKey, Shown>,
    references: HashMap<EventKey, Vec<OwnedEventId>>,
    /// The latest events of threads, by room and number.
    latest: HashMap<(i64, i64), Shown>,
}

impl RoomReader {
    /// `m.relations`, as JSON, of those of the events that others point at, as a user may see them. The events may be
    /// of several rooms; a constant number of queries, and one if nothing points at them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn bundle(&self, viewer: &Viewer, events: &[Arc<Pdu>]) -> Result<Vec<(OwnedEventId, String)>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let ids: HashSet<&RoomId> = events.iter().map(|pdu| &**pdu.room_id()).collect();
        let ids: Vec<&RoomId> = ids.into_iter().collect();
        let rooms = self.rooms_with(&client, &ids).await?;
        let parents: Vec<(RoomNid, &Arc<Pdu>)> = events
            .iter()
            .filter(|pdu| !pdu.is_state())
            .filter_map(|pdu| Some((rooms.get(pdu.room_id())?.nid, pdu)))
            .collect();
        let bundles = self.bundle_with(&client, viewer, &mut HashMap::new(), &parents).await?;
        Ok(bundles.into_iter().collect())
    }

    pub(super) async fn bundle_with(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        parents: &[(RoomNid, &Arc<Pdu>)],
    ) -> Result<HashMap<OwnedEventId, String>> {
        if parents.is_empty() {
            return Ok(HashMap::new());
        }
        let refs = event_refs(parents.iter().copied());
        let mut summaries =
            room_reads::summarize_relations(client, &refs, viewer.user_id.as_str(), &viewer.ignored())
                .await?;
        if summaries.is_empty() {
            return Ok(HashMap::new());
        }
        self.learn_views(client, viewer, views, parents).await?;
        let mut children = Children::default();
        self.read_threads(client, viewer, views, &mut children, &summaries).await?;
        // The latest event of a thread has edits and references of its own.
        if !children.latest.is_empty() {
            let latest: Vec<(RoomNid, &Arc<Pdu>)> =
                children.latest.values().map(|shown| (RoomNid(shown.row.room_nid), &shown.pdu)).collect();
            let refs = event_refs(latest.iter().copied());
            let of_latest =
                room_reads::summarize_relations(client, &refs, viewer.user_id.as_str(), &viewer.ignored())
                    .await?;
            summaries.extend(of_latest.into_iter().filter(|summary| summary.rel_type != "m.thread"));
        }
        self.read_edits(client, viewer, views, &mut children, &summaries).await?;
        self.read_references(client, viewer, views, &mut children, &summaries).await?;
        self.write_bundles(client, viewer, views, &children, parents).await
    }

    async fn learn_views(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        parents: &[(RoomNid, &Arc<Pdu>)],
    ) -> Result<()> {
        let unknown: HashSet<&RoomId> = parents
            .iter()
            .filter(|(room, _)| !views.contains_key(&room.0))
            .map(|(_, pdu)| &**pdu.room_id())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&RoomId> = unknown.into_iter().collect();
        let rooms: Vec<_> = self.rooms_with(client, &unknown).await?.into_values().collect();
        views.extend(self.views_of(client, &viewer.user_id, &rooms).await?);
        Ok(())
    }

    /// Those of the events of several rooms that the user may see.
    async fn show_children(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        rows: Vec<TimelineEvent>,
    ) -> Result<Vec<Shown>> {
        let mut by_room: HashMap<i64, Vec<TimelineEvent>> = HashMap::new();
        for row in rows {
            by_room.entry(row.room_nid).or_default().push(row);
        }
        let mut shown = Vec::new();
        for (room_nid, rows) in by_room {
            if let Some(view) = views.get_mut(&room_nid) {
                shown.extend(self.show(client, viewer, view, rows).await?);
            }
        }
        Ok(shown)
    }

    /// Those of the events that the user may see, each with the one that it points at.
    async fn show_related(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        related: Vec<Related>,
    ) -> Result<Vec<(EventKey, Shown)>> {
        let mut parents: HashMap<(i64, i64), String> = HashMap::with_capacity(related.len());
        let mut rows = Vec::with_capacity(related.len());
        for Related { parent_id, event } in related {
            parents.insert((event.room_nid, event.event.event_nid), parent_id);
            rows.push(event);
        }
        let shown = self.show_children(client, viewer, views, rows).await?;
        let with_parent = |shown: Shown| {
            let room_nid = shown.row.room_nid;
            let parent_id = parents.remove(&(room_nid, shown.row.event.event_nid))?;
            Some(((room_nid, parent_id), shown))
        };
        Ok(shown.into_iter().filter_map(with_parent).collect())
    }

    async fn read_threads(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        children: &mut Children,
        summaries: &[RelationSummary],
    ) -> Result<()> {
        let threads: Vec<&RelationSummary> =
            summaries.iter().filter(|summary| summary.rel_type == "m.thread").collect();
        if threads.is_empty() {
            return Ok(());
        }
        let rooms: Vec<i64> = threads.iter().map(|thread| thread.room_nid).collect();
        let nids: Vec<i64> = threads.iter().map(|thread| thread.latest_nid).collect();
        let rows = room_reads::list_timeline_by_nid(client, &rooms, &nids).await?;
        for shown in self.show_children(client, viewer, views, rows).await? {
            children.latest.insert((shown.row.room_nid, shown.row.event.event_nid), shown);
        }
        for thread in threads {
            children.threads.insert((thread.room_nid, thread.parent_id.clone()), thread.clone());
        }
        Ok(())
    }

    async fn read_edits(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        children: &mut Children,
        summaries: &[RelationSummary],
    ) -> Result<()> {
        let refs = refs_of(summaries, "m.replace");
        if refs.is_empty() {
            return Ok(());
        }
        let edits = room_reads::list_edits(client, &refs).await?;
        for (parent, shown) in self.show_related(client, viewer, views, edits).await? {
            if replaces_content(&shown.pdu) {
                children.edits.insert(parent, shown);
            }
        }
        Ok(())
    }

    async fn read_references(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        children: &mut Children,
        summaries: &[RelationSummary],
    ) -> Result<()> {
        let refs = refs_of(summaries, "m.reference");
        if refs.is_empty() {
            return Ok(());
        }
        let referring = room_reads::list_references(client, &refs, &viewer.ignored(), MAX_REFERENCES).await?;
        let mut shown = self.show_related(client, viewer, views, referring).await?;
        shown.sort_by_key(|(_, shown)| shown.pos());
        for (parent, shown) in shown {
            children.references.entry(parent).or_default().push(shown.pdu.event_id().clone());
        }
        Ok(())
    }

    async fn write_bundles(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &HashMap<i64, View>,
        children: &Children,
        parents: &[(RoomNid, &Arc<Pdu>)],
    ) -> Result<HashMap<OwnedEventId, String>> {
        let inner: Vec<&Shown> = children.latest.values().chain(children.edits.values()).collect();
        let mut details = self.origins(client, views, &inner).await?;
        for shown in children.latest.values() {
            let key = (shown.row.room_nid, shown.pdu.event_id().to_string());
            if let Some(json) = self.write_bundle(viewer, children, &key, &shown.pdu, &Details::default()) {
                details.bundles.insert(shown.pdu.event_id().clone(), json);
            }
        }
        let mut bundles = HashMap::new();
        for (room, pdu) in parents {
            let key = (room.0, pdu.event_id().to_string());
            if let Some(json) = self.write_bundle(viewer, children, &key, pdu, &details) {
                bundles.insert(pdu.event_id().clone(), json);
            }
        }
        Ok(bundles)
    }

    /// `m.relations` of one event, if it has any.
    fn write_bundle(
        &self,
        viewer: &Viewer,
        children: &Children,
        key: &EventKey,
        parent: &Pdu,
        details: &Details,
    ) -> Option<String> {
        let edit = children.edits.get(key).filter(|_| RelatesTo::of(parent).replaces().is_none());
        let references = children.references.get(key);
        let thread = children.threads.get(key).and_then(|thread| {
            let latest = children.latest.get(&(thread.room_nid, thread.latest_nid))?;
            Some((thread, latest))
        });
        if edit.is_none() && references.is_none() && thread.is_none() {
            return None;
        }
        let mut json = String::new();
        let mut relations = ObjectWriter::new(&mut json);
        if let Some((thread, latest)) = thread {
            let mut object = relations.object("m.thread");
            object.with("latest_event", |out| self.write_event(out, viewer, latest, details));
            object.integer("count", thread.count);
            let participated = thread.is_own || *parent.sender() == viewer.user_id;
            object.boolean("current_user_participated", participated);
            object.end();
        }
        if let Some(edit) = edit {
            relations.with("m.replace", |out| self.write_event(out, viewer, edit, details));
        }
        if let Some(references) = references {
            let mut object = relations.object("m.reference");
            object.with("chunk", |out| write_references(out, references));
            object.end();
        }
        relations.end();
        Some(json)
    }
}

fn refs_of<'a>(summaries: &'a [RelationSummary], rel_type: &str) -> EventRef<'a> {
    let mut refs = EventRef::default();
    for summary in summaries.iter().filter(|summary| summary.rel_type == rel_type) {
        refs.push(summary.room_nid, &summary.parent_id);
    }
    refs
}

fn write_references(out: &mut String, references: &[OwnedEventId]) {
    out.push('[');
    for (index, event_id) in references.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut object = ObjectWriter::new(out);
        object.string("event_id", event_id.as_str());
        object.end();
    }
    out.push(']');
}

/// Whether an edit has something to put in the place of what it replaces; of what is encrypted that can't be told.
fn replaces_content(edit: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(rename = "m.new_content", borrow)]
        _new_content: HashMap<std::borrow::Cow<'a, str>, serde::de::IgnoredAny>,
    }
    *edit.event_type() == TimelineEventType::RoomEncrypted || edit.content_as::<Content<'_>>().is_ok()
}
