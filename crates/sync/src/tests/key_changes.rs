//! What `/keys/changes` says.

use std::collections::BTreeSet;

use myelin_types::{Position, StreamId};
use ruma::OwnedUserId;

use super::world::{AMY, BOB, CAS, World, user};
use crate::{SyncError, SyncToken};

#[tokio::test]
async fn a_client_that_was_away_learns_whose_keys_changed_and_who_came_and_went() {
    let world = World::new().await;
    let (room_id, start) = world.room_of_two().await;
    let token = |text: &str| text.parse::<SyncToken>().unwrap();
    let changes = async |from: &str| {
        let now = world.sync.current_token();
        let changes = world.sync.key_changes(&user(BOB), &token(from), &now).await.unwrap();
        let names = |users: BTreeSet<OwnedUserId>| {
            users.iter().map(|user_id| user_id.localpart().to_owned()).collect::<Vec<_>>().join(" ")
        };
        (names(changes.changed), names(changes.left), now.to_string())
    };
    let told = |(changed, left, _): &(String, String, String)| format!("{changed} / {left}");
    assert_eq!(told(&changes(&start).await), " / ");
    for user_id in [AMY, BOB, CAS] {
        world.sources.change_devices(&world.sync, &user(user_id));
    }
    let stranger = changes(&start).await;
    assert_eq!(told(&stranger), "amy bob / ", "Cas is a stranger");
    world.join(CAS, &room_id).await;
    let joined = changes(&stranger.2).await;
    assert_eq!(told(&joined), "cas / ");
    let second = world.room(CAS).await;
    world.join(BOB, &second).await;
    world.leave(CAS, &room_id).await;
    let apart = changes(&joined.2).await;
    assert_eq!(told(&apart), "cas / ", "they came to share another room");
    world.leave(BOB, &second).await;
    assert_eq!(told(&changes(&apart.2).await), " / cas");
    world.leave(BOB, &room_id).await;
    assert_eq!(told(&changes(&start).await), "bob / amy cas");
    let ahead = SyncToken { device_lists: Position::at(StreamId(1 << 40)), ..token(&start) };
    let refused = world.sync.key_changes(&user(BOB), &token(&start), &ahead).await;
    assert!(matches!(refused, Err(SyncError::UnknownPosition)));
}
