//! Other users: their presence, and whose devices changed.

use std::collections::{BTreeSet, HashMap, HashSet};

use myelin_ephemeral::PresenceRow;
use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_storage::{Result, sync::members};
use ruma::{OwnedUserId, UserId};

use super::{Context, rooms::MembershipNews, write_events};

impl Context<'_> {
    /// Writes the presence of those who share a room with the user, and gives whether there is any: what changed, and
    /// of those who have just come into a room of the user what it is.
    pub(super) async fn write_presence(
        &self,
        object: &mut ObjectWriter<'_>,
        news: &MembershipNews,
    ) -> Result<bool> {
        let presence = &self.engine.parts.presence;
        let is_quiet = self.since().is_some_and(|since| since.presence == self.upto.presence)
            && news.came.is_empty()
            && news.joined_rooms.is_empty();
        if is_quiet || !presence.is_enabled() {
            write_events(object, "presence", [(); 0], |_, ()| {});
            return Ok(false);
        }
        let mut rows = match self.since() {
            None => presence.list_present(),
            Some(since) => {
                let log = self.engine.presence_log.lock();
                match log.between(&since.presence, &self.upto.presence) {
                    Some(rows) => latest_of_each(rows),
                    // A client from before our time is told how it is now.
                    None => presence.list_present(),
                }
            }
        };
        if self.since().is_some() {
            let met = self.present_newcomers(news, &rows).await?;
            rows.extend(met);
        }
        let wanted: Vec<PresenceRow> = rows
            .into_iter()
            // Rows of two writers come in any order: what is told is what they come to.
            .map(|row| presence.known(&row.user_id).unwrap_or(row))
            .filter(|row| self.filter().presence.matches("m.presence", &row.user_id, || false))
            .filter(|row| !self.ignored.contains(&row.user_id))
            .collect();
        let sharing = self.sharing_a_room(wanted.iter().map(|row| &row.user_id)).await?;
        let shown = wanted.iter().filter(|row| sharing.contains(&row.user_id));
        Ok(write_events(object, "presence", shown, |out, row| {
            self.engine.write_presence(out, row, self.now);
        }) > 0)
    }

    /// The presence of those whom the user has just met and who are not offline, without those who are told anyway.
    async fn present_newcomers(
        &self,
        news: &MembershipNews,
        told: &[PresenceRow],
    ) -> Result<Vec<PresenceRow>> {
        if news.came.is_empty() && news.joined_rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut met: HashSet<String> = news.came.iter().map(|user_id| user_id.as_str().to_owned()).collect();
        if !news.joined_rooms.is_empty() {
            let client = self.engine.parts.database.get().await?;
            met.extend(members::members_of_any(&client, &news.joined_rooms).await?);
        }
        let mut present = self.engine.parts.presence.list_present();
        present.retain(|row| {
            met.contains(row.user_id.as_str()) && !told.iter().any(|other| other.user_id == row.user_id)
        });
        Ok(present)
    }

    /// Writes whose devices changed, and gives whether there are any
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync)).
    pub(super) async fn write_device_lists(
        &self,
        object: &mut ObjectWriter<'_>,
        news: &MembershipNews,
    ) -> Result<bool> {
        let (changed, left) = match self.since() {
            // Whoever begins asks for the devices of everybody anyway.
            None => (BTreeSet::new(), BTreeSet::new()),
            Some(_) => self.device_lists(news).await?,
        };
        let mut lists = object.object("device_lists");
        for (name, users) in [("changed", &changed), ("left", &left)] {
            lists.with(name, |out| {
                out.push('[');
                for (index, user_id) in users.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_string(out, user_id.as_str());
                }
                out.push(']');
            });
        }
        lists.end();
        Ok(!changed.is_empty() || !left.is_empty())
    }

    async fn device_lists(
        &self,
        news: &MembershipNews,
    ) -> Result<(BTreeSet<OwnedUserId>, BTreeSet<OwnedUserId>)> {
        let mut changed: HashSet<OwnedUserId> = HashSet::new();
        let Some(since) = self.since() else { return Ok(Default::default()) };
        if since.device_lists != self.upto.device_lists {
            let devices = &self.engine.parts.devices;
            let users =
                devices.changed_users(self.user_id(), &since.device_lists, &self.upto.device_lists).await?;
            changed.extend(users);
        }
        changed.extend(news.came.iter().cloned());
        let mut left = news.left.clone();
        self.read_changed_members(news, since.events.minimum(), &mut changed, &mut left).await?;
        let sharing = self.sharing_a_room(changed.iter().chain(&left)).await?;
        let is_me = |user_id: &OwnedUserId| *user_id == self.request.user_id;
        let left = left.into_iter().filter(|user_id| !sharing.contains(user_id) && !is_me(user_id)).collect();
        let changed =
            changed.into_iter().filter(|user_id| sharing.contains(user_id) || is_me(user_id)).collect();
        Ok((changed, left))
    }

    /// Adds those whose coming and going was not seen one by one: all of a room that the user came into or left, and
    /// what changed in a gap.
    async fn read_changed_members(
        &self,
        news: &MembershipNews,
        since: myelin_types::StreamId,
        changed: &mut HashSet<OwnedUserId>,
        left: &mut HashSet<OwnedUserId>,
    ) -> Result<()> {
        let MembershipNews { joined_rooms, left_rooms, gap_rooms, .. } = news;
        if joined_rooms.is_empty() && left_rooms.is_empty() && gap_rooms.is_empty() {
            return Ok(());
        }
        let client = self.engine.parts.database.get().await?;
        let users =
            |names: Vec<String>| names.into_iter().filter_map(|name| OwnedUserId::try_from(name).ok());
        if !joined_rooms.is_empty() {
            changed.extend(users(members::members_of_any(&client, joined_rooms).await?));
        }
        if !left_rooms.is_empty() {
            left.extend(users(members::members_of_any(&client, left_rooms).await?));
        }
        if !gap_rooms.is_empty() {
            for (name, membership) in members::members_changed(&client, gap_rooms, since).await? {
                let Ok(user_id) = OwnedUserId::try_from(name) else { continue };
                match membership {
                    1 => _ = changed.insert(user_id),
                    0 | 4 => _ = left.insert(user_id),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Those of some users who share a room with the user; the user does.
    async fn sharing_a_room<'u>(
        &self,
        users: impl Iterator<Item = &'u OwnedUserId>,
    ) -> Result<HashSet<OwnedUserId>> {
        let mut sharing = HashSet::new();
        let mut unknown: Vec<&UserId> = Vec::new();
        for user_id in users {
            match self.shares_a_room(user_id) {
                Some(true) => _ = sharing.insert(user_id.clone()),
                Some(false) => {}
                None => unknown.push(user_id),
            }
        }
        let sid = self.user.inner.lock().sid;
        if let (Some(sid), false) = (sid, unknown.is_empty()) {
            let names: Vec<&str> = unknown.iter().map(|user_id| user_id.as_str()).collect();
            let client = self.engine.parts.database.get().await?;
            let found = members::sharing_a_room(&client, sid, &names).await?;
            sharing.extend(found.into_iter().filter_map(|name| OwnedUserId::try_from(name).ok()));
        }
        Ok(sharing)
    }

    /// Whether a user shares a room with the user, if both are followed.
    fn shares_a_room(&self, user_id: &UserId) -> Option<bool> {
        if user_id == self.user_id() {
            return Some(true);
        }
        let other = self.engine.followed(user_id)?;
        let rooms: Vec<_> = {
            let other = other.inner.lock();
            other.sid?;
            other.joined().map(|(nid, _)| *nid).collect()
        };
        let user = self.user.inner.lock();
        let is_in = |nid| {
            user.rooms
                .get(nid)
                .is_some_and(|room| room.membership == ruma::events::room::member::MembershipState::Join)
        };
        Some(rooms.iter().any(is_in))
    }
}

/// Of several changes of a user only the last one.
fn latest_of_each<'a>(rows: impl Iterator<Item = &'a PresenceRow>) -> Vec<PresenceRow> {
    let latest: HashMap<&UserId, &PresenceRow> = rows.map(|row| (&*row.user_id, row)).collect();
    latest.into_values().cloned().collect()
}
