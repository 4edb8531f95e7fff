//! Upgrades.

use std::{sync::Arc, time::Duration};

use myelin_events::Pdu;
use myelin_rooms::{CreateRoom, MembershipAction, RequestId, RoomError, UpgradeRoom};
use ruma::{RoomVersionId, room_alias_id};
use serde_json::json;
use tokio::time::timeout;

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
        request: None,
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

#[tokio::test]
async fn an_upgrade_that_is_repeated_is_finished_and_not_begun_again() {
    let versions = [RoomVersionId::V11, RoomVersionId::V12];
    for (version, has_tombstone) in
        versions.into_iter().flat_map(|version| [(version.clone(), false), (version, true)])
    {
        let world = World::new().await;
        let old = world.room_of_version(RoomVersionId::V10).await;
        let alias = room_alias_id!("#a:one.test");
        world.rooms.create_alias(&user(ALICE), alias, &old).await.unwrap();
        world.set(ALICE, &old, "m.room.canonical_alias", "", json!({"alias": alias})).await.unwrap();
        // Who was asked first came as far as making the successor, or as ending the room.
        let mut create = CreateRoom::new(user(ALICE));
        create.request = RequestId::new(&user(ALICE), "one");
        create.room_version = Some(version.clone());
        let request = create.request.clone();
        let made = world.rooms.create_room(create).await.unwrap();
        if has_tombstone {
            let replacement = json!({"body": "", "replacement_room": made});
            world.set(ALICE, &old, "m.room.tombstone", "", replacement).await.unwrap();
        }

        let upgrade = UpgradeRoom {
            sender: user(ALICE),
            room_id: old.clone(),
            new_version: version,
            additional_creators: vec![],
            request,
        };
        for _ in 0..2 {
            let finished = timeout(Duration::from_secs(30), world.rooms.upgrade(upgrade.clone())).await;
            assert_eq!(finished.expect("nobody waits for themselves").unwrap(), made);
            let levels = world.content(&old, "m.room.power_levels", "");
            assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
            assert_eq!(world.content(&old, "m.room.tombstone", "")["replacement_room"], made.as_str());
            assert_eq!(world.rooms.get_alias(alias).await.unwrap(), Some(made.clone()));
            assert_eq!(world.content(&made, "m.room.canonical_alias", "")["alias"], alias.as_str());
        }
        let is_tombstone = |event: &&Arc<Pdu>| event.event_type().to_string() == "m.room.tombstone";
        assert_eq!(world.timeline(&old).iter().filter(is_tombstone).count(), 1);
    }
}
