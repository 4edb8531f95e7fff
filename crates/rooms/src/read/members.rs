//! The members of rooms ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers)).

use myelin_events::{
    MemberContent,
    raw_json::{ObjectWriter, push_string},
};
use ruma::{RoomId, events::room::member::MembershipState};

use super::{
    JsonArray, NOT_A_MEMBER, PaginationToken, Result, RoomReader, Viewer,
    state::{MEMBER, StateEntry},
    view::StatePoint,
};

/// Which members.
#[derive(Clone, Debug, Default)]
pub struct MembersRequest {
    /// As they were then; `None`: as they are now.
    pub at: Option<PaginationToken>,
    /// Only those who are this in the room.
    pub membership: Option<MembershipState>,
    /// Only those who are not this in the room.
    pub not_membership: Option<MembershipState>,
}

impl RoomReader {
    /// The member events of a room: for members, and as of their leaving for those who left.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`](super::ReadError::Forbidden) if the user may not see them.
    pub async fn members(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        request: &MembersRequest,
    ) -> Result<JsonArray> {
        let client = self.client().await?;
        let view = self.view(&client, viewer, room_id).await?;
        let state = match (view.state_point()?, request.at) {
            (StatePoint::Current, None) => self.current_state(&client, &view.room).await?,
            (StatePoint::Current, Some(at)) => self.state_after(&client, &view.room, at.0).await?,
            (StatePoint::At(left), at) => {
                let at = at.map_or(left, |at| at.0.min(left));
                self.state_after(&client, &view.room, at).await?
            }
        };
        let MembersRequest { membership, not_membership, .. } = request;
        let takes_all = membership.is_none() && not_membership.is_none();
        let is_wanted = |entry: &StateEntry| {
            if takes_all {
                return true;
            }
            let is = entry.membership();
            // With both, those are told that fit either: they ask for different members.
            match (membership, not_membership) {
                (Some(wanted), Some(unwanted)) => is == *wanted || is != *unwanted,
                (Some(wanted), None) => is == *wanted,
                (None, Some(unwanted)) => is != *unwanted,
                (None, None) => true,
            }
        };
        let now = self.0.clock.now();
        let mut members = JsonArray::with_capacity(state.size_bytes() / 2);
        for (_, entry) in state.of_type(MEMBER).filter(|(_, entry)| is_wanted(entry)) {
            members.push(|out| entry.write(out, now));
        }
        Ok(members)
    }

    /// The members who are in a room, with their names and pictures, as a JSON object by user.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`](super::ReadError::Forbidden) if the user is not in the room.
    pub async fn joined_members(&self, viewer: &Viewer, room_id: &RoomId) -> Result<String> {
        let client = self.client().await?;
        let view = self.view(&client, viewer, room_id).await?;
        if !view.is_joined() {
            return Err(NOT_A_MEMBER);
        }
        let state = self.current_state(&client, &view.room).await?;
        let mut json = String::from("{");
        for (user_id, entry) in state.of_type(MEMBER) {
            let Some(content) = MemberContent::of(&entry.pdu) else { continue };
            if content.membership != MembershipState::Join {
                continue;
            }
            if json.len() > 1 {
                json.push(',');
            }
            push_string(&mut json, user_id);
            json.push(':');
            let mut member = ObjectWriter::new(&mut json);
            let fields = [("display_name", &content.displayname), ("avatar_url", &content.avatar_url)];
            for (name, text) in fields {
                if let Some(text) = text {
                    member.string(name, text);
                }
            }
            member.end();
        }
        json.push('}');
        Ok(json)
    }
}
