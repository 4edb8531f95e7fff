//! Spaces and the rooms below them
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces)).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{Pdu, raw_json::ObjectWriter};
use myelin_storage::{Client, room_reads};
use ruma::{
    OwnedRoomId, OwnedSpaceChildOrder, RoomId, UserId,
    room::{RoomSummary, RoomType},
};

use super::{JsonArray, ReadError, Result, RoomInfo, RoomReader, summary::field};
use crate::stream::stored;

/// How deep a client can go.
const MAX_DEPTH: usize = 20;
/// Rooms of one tree at most.
const MAX_TREE: usize = 2000;
/// Rooms of one page at most.
const MAX_ROOMS: usize = 50;

/// A page of a tree that a client asks for.
#[derive(Clone, Debug, Default)]
pub struct HierarchyRequest {
    /// Where to go on.
    pub from: Option<String>,
    /// Rooms at most; `None`: as the server likes.
    pub limit: Option<usize>,
    /// How far below the first room; `None`: as far as it goes.
    pub max_depth: Option<usize>,
    /// Only rooms that their space suggests.
    pub suggested_only: bool,
}

/// A page of a tree.
#[derive(Clone, Debug, Default)]
pub struct Hierarchy {
    /// The rooms with their children, depth first.
    pub rooms: JsonArray,
    /// Where to go on, if there is more.
    pub next_batch: Option<String>,
}

/// A room of the tree.
struct Node {
    summary: Arc<RoomSummary>,
    /// The `m.space.child` events, in the order of the children.
    children: Vec<Child>,
}

/// A room that a space names.
struct Child {
    room_id: OwnedRoomId,
    order: (bool, Option<OwnedSpaceChildOrder>, u64),
    is_suggested: bool,
    pdu: Arc<Pdu>,
}

impl Child {
    /// What an `m.space.child` event says; `None` if it says nothing any more.
    fn of(pdu: Arc<Pdu>) -> Option<Self> {
        let _via: Vec<serde::de::IgnoredAny> = field(&pdu, "via")?;
        let room_id = RoomId::parse(pdu.state_key()?).ok()?;
        let order: Option<OwnedSpaceChildOrder> = field(&pdu, "order");
        let is_suggested = field(&pdu, "suggested").unwrap_or(false);
        let sent_at = pdu.origin_server_ts().0.into();
        Some(Self { room_id, order: (order.is_none(), order, sent_at), is_suggested, pdu })
    }
}

impl RoomReader {
    /// A page of the rooms below a space, as far as the user may know of them. A constant number of queries per level.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`] if the user may not know of the space, or it isn't there.
    pub async fn hierarchy(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        request: &HierarchyRequest,
    ) -> Result<Hierarchy> {
        let first: usize = match &request.from {
            None => 0,
            Some(token) => token
                .strip_prefix('h')
                .and_then(|place| place.parse().ok())
                .ok_or(ReadError::InvalidParam("unknown pagination token"))?,
        };
        let client = self.client().await?;
        let depth = request.max_depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        let tree = self.read_tree(&client, user_id, room_id, depth, request.suggested_only).await?;
        if !tree.contains_key(room_id) {
            return Err(ReadError::Forbidden("You may not see this space"));
        }
        let order = depth_first(&tree, room_id, depth, request.suggested_only);
        let limit = request.limit.unwrap_or(MAX_ROOMS).clamp(1, MAX_ROOMS);
        let mut rooms = JsonArray::default();
        for room_id in order.iter().skip(first).take(limit) {
            if let Some(node) = tree.get(*room_id) {
                rooms.push(|out| write_node(out, node, request.suggested_only));
            }
        }
        let end = first.saturating_add(limit);
        Ok(Hierarchy { rooms, next_batch: (end < order.len()).then(|| format!("h{end}")) })
    }

    /// Reads a tree level by level.
    async fn read_tree(
        &self,
        client: &Client,
        user_id: &UserId,
        root: &RoomId,
        depth: usize,
        suggested_only: bool,
    ) -> Result<HashMap<OwnedRoomId, Node>> {
        let mut tree: HashMap<OwnedRoomId, Node> = HashMap::new();
        let mut level = vec![root.to_owned()];
        for _ in 0..=depth {
            let ids: Vec<&RoomId> = level.iter().map(|room_id| &**room_id).collect();
            let rooms: Vec<Arc<RoomInfo>> = self.rooms_with(client, &ids).await?.into_values().collect();
            let nodes = self.read_nodes(client, user_id, &rooms).await?;
            let wanted: HashSet<OwnedRoomId> = nodes
                .values()
                .flat_map(|node| &node.children)
                .filter(|child| child.is_suggested || !suggested_only)
                .map(|child| child.room_id.clone())
                .collect();
            tree.extend(nodes);
            let free = MAX_TREE.saturating_sub(tree.len());
            level = wanted.into_iter().filter(|room_id| !tree.contains_key(room_id)).take(free).collect();
            if level.is_empty() {
                break;
            }
        }
        Ok(tree)
    }

    /// Those of the rooms that the user may know of.
    async fn read_nodes(
        &self,
        client: &Client,
        user_id: &UserId,
        rooms: &[Arc<RoomInfo>],
    ) -> Result<HashMap<OwnedRoomId, Node>> {
        let summaries = self.summaries(client, rooms).await?;
        let memberships = self.memberships(client, Some(user_id), rooms, &summaries).await?;
        let is_space = |room: &&Arc<RoomInfo>| {
            let room_type = summaries.get(&room.nid.0).and_then(|summary| summary.room_type.as_ref());
            room_type.is_some_and(|room_type| *room_type == RoomType::Space)
        };
        let spaces: HashMap<i64, &Arc<RoomInfo>> =
            rooms.iter().filter(is_space).map(|room| (room.nid.0, room)).collect();
        let mut children: HashMap<i64, Vec<Child>> = HashMap::new();
        if !spaces.is_empty() {
            let nids: Vec<i64> = spaces.keys().copied().collect();
            let types = self.0.strings.intern_all(client, &["m.space.child"]).await?;
            for row in room_reads::list_summary_state(client, &nids, &types).await? {
                let Some(room) = spaces.get(&row.room_nid) else { continue };
                let child = Child::of(stored(&room.room_id, room.rules, &row.event)?);
                children.entry(row.room_nid).or_default().extend(child);
            }
        }
        let mut nodes = HashMap::new();
        for room in rooms {
            let Some(summary) = summaries.get(&room.nid.0) else { continue };
            if memberships.may_know(summary) {
                let mut children = children.remove(&room.nid.0).unwrap_or_default();
                children
                    .sort_by(|one, other| (&one.order, &one.room_id).cmp(&(&other.order, &other.room_id)));
                nodes.insert(room.room_id.clone(), Node { summary: summary.clone(), children });
            }
        }
        Ok(nodes)
    }
}

/// The rooms of a tree, each where it stands first; loops end where they close.
fn depth_first<'a>(
    tree: &'a HashMap<OwnedRoomId, Node>,
    root: &'a RoomId,
    depth: usize,
    suggested_only: bool,
) -> Vec<&'a RoomId> {
    let mut order = Vec::with_capacity(tree.len());
    let mut seen: HashSet<&RoomId> = HashSet::new();
    let mut stack = vec![(root, 0)];
    while let Some((room_id, level)) = stack.pop() {
        let Some(node) = tree.get(room_id) else { continue };
        if !seen.insert(room_id) {
            continue;
        }
        order.push(room_id);
        if level < depth {
            let children = node.children.iter().rev().filter(|child| child.is_suggested || !suggested_only);
            stack.extend(children.map(|child| (&*child.room_id, level + 1)));
        }
    }
    order
}

fn write_node(out: &mut String, node: &Node, suggested_only: bool) {
    let summary = serde_json::to_string(&*node.summary).expect("a summary is JSON");
    // The summary's object goes on.
    out.push_str(summary.strip_suffix('}').unwrap_or(&summary));
    let mut object = ObjectWriter::resume(out);
    object.with("children_state", |out| {
        out.push('[');
        let children = node.children.iter().filter(|child| child.is_suggested || !suggested_only);
        for (index, child) in children.enumerate() {
            if index > 0 {
                out.push(',');
            }
            let pdu = &child.pdu;
            let mut object = ObjectWriter::new(out);
            object.raw("content", pdu.content());
            object.integer("origin_server_ts", ruma::Int::from(pdu.origin_server_ts().0).into());
            object.string("sender", pdu.sender().as_str());
            object.string("state_key", child.room_id.as_str());
            object.display("type", pdu.event_type());
            object.end();
        }
        out.push(']');
    });
    object.end();
}
