//! Upgrades.

use myelin_rooms::{MembershipAction, RoomError, UpgradeRoom};
use ruma::{RoomVersionId, room_alias_id};
use serde_json::json;

use crate::world::{ALICE, BOB, CAROL, World, user};

async fn check(from: RoomVersionId, to: RoomVersionId) {
    let world = World::new().await;
    let old = world.room_of_version(from.clone()).await;
    world.join(BOB, &old).await.unwrap();
    world.set(ALICE, &old, "m.room.topic", "", json!({"topic": "kept"})).await.unwrap();
    world.change(ALICE, &old, MembershipAction::Ban, CAROL).await.unwrap();
    let alias = room_alias_id!("#a:one.test");
    world.rooms.create_alias(&user(ALICE), alias, &old).await.unwrap();
    world.set(ALICE, &old, "m.room.canonical_alias", "", json!({"alias": alias})).await.unwrap();
    let request = UpgradeRoom {
        sender: user(BOB),
        room_id: old.clone(),
        new_version: to.clone(),
        additional_creators: vec![],
    };
    let refused = world.rooms.upgrade(request.clone()).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");

    let new = world.rooms.upgrade(UpgradeRoom { sender: user(ALICE), ..request }).await.unwrap();
    let tombstone = world.state(&old, "m.room.tombstone", "").unwrap();
    assert_eq!(world.content(&old, "m.room.tombstone", "")["replacement_room"], new.as_str());
    let create = world.content(&new, "m.room.create", "");
    assert_eq!(create["room_version"], to.as_str());
    assert_eq!(create["predecessor"]["room_id"], old.as_str());
    if to != RoomVersionId::V12 {
        assert_eq!(create["predecessor"]["event_id"], tombstone.event_id().as_str());
    }
    assert_eq!(world.content(&new, "m.room.topic", "")["topic"], "kept");
    assert_eq!(world.content(&new, "m.room.join_rules", "")["join_rule"], "public");
    assert_eq!(world.content(&new, "m.room.member", CAROL)["membership"], "ban");
    let levels = world.content(&new, "m.room.power_levels", "");
    match to {
        RoomVersionId::V12 => assert_eq!(levels["users"], json!({})),
        _ => assert_eq!(levels["users"], json!({ALICE: 100})),
    }
    assert_eq!(world.rooms.get_alias(alias).await.unwrap(), Some(new.clone()));
    assert_eq!(world.content(&new, "m.room.canonical_alias", "")["alias"], alias.as_str());
    assert_eq!(world.content(&old, "m.room.canonical_alias", ""), json!({}));
    assert!(world.rooms.is_public(&new).await.unwrap() && !world.rooms.is_public(&old).await.unwrap());
    let refused = world.say(BOB, &old, "still here?").await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{from} to {to}: {refused:?}");
    world.join(BOB, &new).await.unwrap();
    world.say(BOB, &new, "here").await.unwrap();
}

#[tokio::test]
async fn an_upgraded_room_has_a_successor_with_its_state() {
    check(RoomVersionId::V1, RoomVersionId::V11).await;
    check(RoomVersionId::V10, RoomVersionId::V12).await;
    check(RoomVersionId::V12, RoomVersionId::V12).await;
    check(RoomVersionId::V12, RoomVersionId::V10).await;
}
