//! Joining, inviting, leaving, and being removed.

use std::{sync::atomic::Ordering, time::Duration};

use myelin_rooms::{ChangeMembership, MemberProfile, MembershipAction, ProfileUpdate, RoomError};
use myelin_storage::accounts::profiles;
use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, room_alias_id, uint};
use serde_json::json;

use crate::world::{ALICE, BOB, CAROL, World, user};
use MembershipAction::{Ban, Invite, Join, Kick, Knock, Leave, Unban};

#[tokio::test]
async fn memberships_follow_the_rules() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.set(ALICE, &room_id, "m.room.join_rules", "", json!({"join_rule": "invite"})).await.unwrap();
    // Who does what to whom, and what the target is then; nothing if it is refused.
    let steps = [
        (BOB, Join, BOB, None),
        (ALICE, Kick, BOB, None),
        (ALICE, Invite, BOB, Some("invite")),
        (BOB, Leave, BOB, Some("leave")),
        (BOB, Join, BOB, None),
        (ALICE, Invite, BOB, Some("invite")),
        (BOB, Join, BOB, Some("join")),
        (ALICE, Invite, BOB, None),
        (BOB, Kick, ALICE, None),
        (BOB, Ban, ALICE, None),
        (ALICE, Unban, BOB, None),
        (ALICE, Ban, BOB, Some("ban")),
        (ALICE, Kick, BOB, None),
        (ALICE, Invite, BOB, None),
        (BOB, Leave, BOB, None),
        (ALICE, Unban, BOB, Some("leave")),
        (BOB, Knock, BOB, None),
        (ALICE, Invite, BOB, Some("invite")),
        (ALICE, Kick, BOB, Some("leave")),
        (ALICE, Leave, ALICE, Some("leave")),
        (ALICE, Invite, BOB, None),
    ];
    for (number, (sender, action, target, expected)) in steps.into_iter().enumerate() {
        let outcome = world.change(sender, &room_id, action, target).await;
        assert_eq!(
            outcome.is_ok(),
            expected.is_some(),
            "step {number}: {sender} {action:?} {target}: {outcome:?}"
        );
        if let Some(expected) = expected {
            assert_eq!(
                world.content(&room_id, "m.room.member", target)["membership"],
                expected,
                "step {number}"
            );
        }
    }
}

#[tokio::test]
async fn joining_again_says_nothing_new() {
    let world = World::new().await;
    let room_id = world.room().await;
    let first = world.join(BOB, &room_id).await.unwrap();
    assert_eq!(world.join(BOB, &room_id).await.unwrap(), first);
    let world = world.restart().await;
    assert_eq!(world.join(BOB, &room_id).await.unwrap(), first);
}

#[tokio::test]
async fn joining_again_with_something_to_say_is_an_event() {
    let world = World::new().await;
    let room_id = world.room().await;
    let mut last = world.join(BOB, &room_id).await.unwrap();
    for content in [
        json!({"membership": "join", "displayname": "Bobby"}),
        json!({"membership": "join", "displayname": "bob", "avatar_url": "mxc://x/y"}),
        json!({"membership": "join", "displayname": "bob", "extra": true}),
    ] {
        // What one says of oneself in this room, and then to go by one's profile again.
        let said = world.set(BOB, &room_id, "m.room.member", BOB, content.clone()).await.unwrap();
        assert_ne!(said, last, "{content}");
        assert_eq!(world.content(&room_id, "m.room.member", BOB), content);
        last = said.clone();
        if content["extra"].is_null() {
            last = world.join(BOB, &room_id).await.unwrap();
            assert_ne!(last, said, "{content}");
            let expected = json!({"membership": "join", "displayname": "bob"});
            assert_eq!(world.content(&room_id, "m.room.member", BOB), expected);
        }
    }
}

#[tokio::test]
async fn users_of_other_servers_are_not_invited() {
    let world = World::new().await;
    let room_id = world.room().await;
    let refused = world.change(ALICE, &room_id, Invite, "@rob:two.test").await;
    assert!(matches!(refused, Err(RoomError::RemoteUser(_))), "{refused:?}");
    world.change(ALICE, &room_id, Ban, "@rob:two.test").await.unwrap();
}

#[tokio::test]
async fn a_member_event_shows_the_profile_of_who_comes() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.set(ALICE, &room_id, "m.room.join_rules", "", json!({"join_rule": "knock"})).await.unwrap();
    for (sender, action, target, name) in [
        (BOB, Knock, BOB, json!("bob")),
        (ALICE, Invite, BOB, json!("bob")),
        (BOB, Join, BOB, json!("bob")),
        (ALICE, Kick, BOB, json!(null)),
        (ALICE, Ban, BOB, json!(null)),
        (ALICE, Unban, BOB, json!(null)),
        (ALICE, Leave, ALICE, json!(null)),
    ] {
        world.change(sender, &room_id, action, target).await.unwrap();
        let member = world.content(&room_id, "m.room.member", target);
        assert_eq!(member["displayname"], name, "{action:?}");
    }
}

#[tokio::test]
async fn a_blocked_room_can_be_left_and_nothing_else() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.join(BOB, &room_id).await.unwrap();
    world.rooms.set_blocked(&room_id, true).await.unwrap();
    for (sender, action, target) in [(CAROL, Join, CAROL), (ALICE, Invite, CAROL), (ALICE, Kick, BOB)] {
        let refused = world.change(sender, &room_id, action, target).await;
        assert!(matches!(refused, Err(RoomError::Blocked)), "{action:?}: {refused:?}");
    }
    world.change(BOB, &room_id, Leave, BOB).await.unwrap();
    world.rooms.set_blocked(&room_id, false).await.unwrap();
    world.join(CAROL, &room_id).await.unwrap();
}

#[tokio::test]
async fn leaving_forgets_where_the_operator_wants_it() {
    let forgotten = "SELECT count(*) FROM memberships WHERE forgotten";
    for forget_on_leave in [false, true] {
        let world = World::with(|options| options.forget_on_leave = forget_on_leave).await;
        let room_id = world.room().await;
        for user_id in [BOB, CAROL] {
            world.join(user_id, &room_id).await.unwrap();
        }
        world.change(ALICE, &room_id, Kick, CAROL).await.unwrap();
        assert_eq!(world.count(forgotten).await, 0, "who is removed may want to know");
        // The second time nothing is left to be said, but a first request may have ended in between.
        for _ in 0..2 {
            world.execute("UPDATE memberships SET forgotten = false").await;
            world.change(BOB, &room_id, Leave, BOB).await.unwrap();
            assert_eq!(world.count(forgotten).await, i64::from(forget_on_leave));
        }
    }
}

#[tokio::test]
async fn what_is_said_twice_of_a_membership_is_said_once() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.set(ALICE, &room_id, "m.room.join_rules", "", json!({"join_rule": "knock"})).await.unwrap();
    let steps = [
        (ALICE, Invite, BOB),
        (BOB, Join, BOB),
        (ALICE, Kick, BOB),
        (ALICE, Ban, BOB),
        (ALICE, Unban, BOB),
        (BOB, Knock, BOB),
        (BOB, Leave, BOB),
    ];
    for (sender, action, target) in steps {
        let first = world.change(sender, &room_id, action, target).await.unwrap();
        let again = world.change(sender, &room_id, action, target).await;
        assert_eq!(again.unwrap(), first, "{sender} {action:?} {target}");
    }
    // What others say is another thing, and so is what is said otherwise.
    let refused = world.change(ALICE, &room_id, Kick, BOB).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    let first = world.change(ALICE, &room_id, Ban, BOB).await.unwrap();
    let mut request = ChangeMembership::new(user(ALICE), room_id.clone(), Ban);
    (request.target, request.reason) = (user(BOB), Some("spam".to_owned()));
    assert_ne!(world.rooms.change_membership(request).await.unwrap(), first);
}

#[tokio::test]
async fn a_knock_can_be_answered_by_an_invite() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.set(ALICE, &room_id, "m.room.join_rules", "", json!({"join_rule": "knock"})).await.unwrap();
    world.change(BOB, &room_id, Knock, BOB).await.unwrap();
    assert!(world.join(BOB, &room_id).await.is_err());
    world.change(ALICE, &room_id, Invite, BOB).await.unwrap();
    world.join(BOB, &room_id).await.unwrap();
}

#[tokio::test]
async fn members_of_one_room_may_join_another_that_is_restricted_to_them() {
    let world = World::new().await;
    for (version, rule) in [(RoomVersionId::V9, "restricted"), (RoomVersionId::V12, "knock_restricted")] {
        let (space, room_id) = (world.room().await, world.room_of_version(version).await);
        let rules = json!({"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": space}]});
        world.set(ALICE, &room_id, "m.room.join_rules", "", rules).await.unwrap();
        let refused = world.join(BOB, &room_id).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
        world.join(BOB, &space).await.unwrap();
        world.join(BOB, &room_id).await.unwrap();
        let member = world.content(&room_id, "m.room.member", BOB);
        assert_eq!(member["join_authorised_via_users_server"], ALICE);
        let before = world.seen().len();
        world.join(BOB, &room_id).await.unwrap();
        assert_eq!(world.seen().len(), before, "nobody need vouch for who is in");
        world.change(ALICE, &room_id, Leave, ALICE).await.unwrap();
        let levels = world.content(&room_id, "m.room.power_levels", "");
        assert_eq!(levels["invite"], 50, "so that Bob can vouch for nobody");
        world.join(CAROL, &space).await.unwrap();
        let refused = world.join(CAROL, &room_id).await;
        assert!(matches!(refused, Err(RoomError::UnableToAuthoriseJoin)), "{refused:?}");
    }
}

#[tokio::test]
async fn guests_come_in_where_the_room_lets_them() {
    let world = World::new().await;
    let room_id = world.room().await;
    let mut request = ChangeMembership::new(user(BOB), room_id.clone(), Join);
    request.is_guest = true;
    let refused = world.rooms.change_membership(request.clone()).await;
    assert!(matches!(refused, Err(RoomError::GuestsForbidden)), "{refused:?}");
    for access in ["forbidden", "can_knock"] {
        world.set(ALICE, &room_id, "m.room.guest_access", "", json!({"guest_access": access})).await.unwrap();
        let refused = world.rooms.change_membership(request.clone()).await;
        assert!(matches!(refused, Err(RoomError::GuestsForbidden)), "{access}: {refused:?}");
    }
    world.join(CAROL, &room_id).await.unwrap();
    world.set(ALICE, &room_id, "m.room.guest_access", "", json!({"guest_access": "can_join"})).await.unwrap();
    let joined = world.rooms.change_membership(request.clone()).await.unwrap();
    world
        .set(ALICE, &room_id, "m.room.guest_access", "", json!({"guest_access": "forbidden"}))
        .await
        .unwrap();
    assert_eq!(world.rooms.change_membership(request).await.unwrap(), joined, "who is in stays in");
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.join(BOB, &room_id).await.unwrap();
    let check = async |sender: &str, action, target: &str, expected: &str| {
        let refused = world.change(sender, &room_id, action, target).await.unwrap_err();
        assert!(matches!(refused, RoomError::Forbidden(_) | RoomError::Banned(_)), "{refused:?}");
        assert!(refused.to_string().contains(expected), "{action:?}: {refused}");
    };
    check(ALICE, Invite, BOB, "in the room already").await;
    check(ALICE, Unban, BOB, "not banned").await;
    check(ALICE, Kick, CAROL, "not in the room").await;
    world.set(ALICE, &room_id, "m.room.join_rules", "", json!({"join_rule": "knock"})).await.unwrap();
    world.change(ALICE, &room_id, Ban, BOB).await.unwrap();
    check(ALICE, Kick, BOB, "is banned").await;
    for (sender, action) in [(BOB, Join), (BOB, Knock), (ALICE, Invite)] {
        let refused = world.change(sender, &room_id, action, BOB).await;
        assert!(matches!(refused, Err(RoomError::Banned(_))), "{action:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_membership_may_be_of_another_time() {
    let world = World::new().await;
    let room_id = world.room().await;
    let mut request = ChangeMembership::new(user(BOB), room_id.clone(), Join);
    let timestamp = MilliSecondsSinceUnixEpoch(uint!(1_600_000_000));
    request.timestamp = Some(timestamp);
    world.rooms.change_membership(request).await.unwrap();
    let member = world.state(&room_id, "m.room.member", BOB).unwrap();
    assert_eq!(member.origin_server_ts(), timestamp);
}

#[tokio::test]
async fn a_room_is_forgotten_only_by_who_left_it() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.join(BOB, &room_id).await.unwrap();
    let refused = world.rooms.forget(&user(BOB), &room_id).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    world.change(BOB, &room_id, Leave, BOB).await.unwrap();
    world.rooms.forget(&user(BOB), &room_id).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM memberships WHERE forgotten").await, 1);
    world.join(BOB, &room_id).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM memberships WHERE forgotten").await, 0);
}

#[tokio::test]
async fn a_new_profile_reaches_the_rooms_that_the_user_is_in() {
    let world = World::new().await;
    let (first, second, left) = (world.room().await, world.room().await, world.room().await);
    for room_id in [&first, &second, &left] {
        world.join(BOB, room_id).await.unwrap();
    }
    world.change(BOB, &left, Leave, BOB).await.unwrap();
    let profile =
        MemberProfile { displayname: Some("Bobby".to_owned()), avatar_url: Some("mxc://x/y".to_owned()) };
    *world.names.to_show.lock().unwrap() = profile.clone();
    let update = world.rooms.update_profile(&user(BOB), &profile).await.unwrap();
    assert_eq!(update, ProfileUpdate { shown: 2, to_be_tried_again: 0 });
    let expected = json!({"membership": "join", "displayname": "Bobby", "avatar_url": "mxc://x/y"});
    assert_eq!(world.content(&first, "m.room.member", BOB), expected);
    assert_eq!(world.content(&second, "m.room.member", BOB), expected);
    assert_eq!(world.content(&left, "m.room.member", BOB)["membership"], "leave");

    // What was asked for before, and arrives now.
    let old = MemberProfile { displayname: Some("Bobo".to_owned()), avatar_url: None };
    world.rooms.update_profile_in(&first, &user(BOB), &old).await.unwrap();
    assert_eq!(world.content(&first, "m.room.member", BOB), expected);
    let new = MemberProfile { displayname: Some("Robert".to_owned()), avatar_url: None };
    *world.names.to_show.lock().unwrap() = new;
    world.rooms.update_profile_in(&first, &user(BOB), &old).await.unwrap();
    let expected = json!({"membership": "join", "displayname": "Robert"});
    assert_eq!(world.content(&first, "m.room.member", BOB), expected);
}

#[tokio::test]
async fn a_profile_that_one_process_could_not_show_is_shown_by_the_next() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.join(BOB, &room_id).await.unwrap();
    profiles::set_to_show(&world.database.get().await.unwrap(), &user(BOB)).await.unwrap();
    // From here on this process writes no room.
    world.rooms.leave().await.unwrap();
    // Once somebody asks a second time, the first attempt is over.
    while world.names.asked.load(Ordering::SeqCst) < 2 {
        world.rooms.profile_changed(user(BOB));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM profiles_to_show").await, 1);

    let world = world.restart().await;
    let displayname = Some("Bob the second".to_owned());
    *world.names.to_show.lock().unwrap() = MemberProfile { displayname, avatar_url: None };
    let stop = async {
        while world.count("SELECT count(*) FROM profiles_to_show").await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let showing = world.rooms.show_late_profiles(Duration::from_millis(50), stop);
    tokio::time::timeout(Duration::from_secs(30), showing).await.expect("it is shown in the end");
    assert_eq!(world.content(&room_id, "m.room.member", BOB)["displayname"], "Bob the second");
}

#[tokio::test]
async fn aliases_belong_to_their_makers_and_to_who_has_the_power() {
    let world = World::new().await;
    let room_id = world.room().await;
    let alias = room_alias_id!("#a:one.test");
    let refused = world.rooms.create_alias(&user(BOB), alias, &room_id).await;
    assert!(matches!(refused, Err(RoomError::NotJoined)), "{refused:?}");
    world.join(BOB, &room_id).await.unwrap();
    world.rooms.create_alias(&user(BOB), alias, &room_id).await.unwrap();
    let refused = world.rooms.create_alias(&user(ALICE), alias, &room_id).await;
    assert!(matches!(refused, Err(RoomError::AliasTaken(_))), "{refused:?}");
    let canonical = json!({"alias": alias, "alt_aliases": ["#none:one.test"]});
    let refused = world.set(ALICE, &room_id, "m.room.canonical_alias", "", canonical).await;
    assert!(matches!(refused, Err(RoomError::BadAlias(_))), "{refused:?}");
    world.set(ALICE, &room_id, "m.room.canonical_alias", "", json!({"alias": alias})).await.unwrap();
    world.join(CAROL, &room_id).await.unwrap();
    let refused = world.rooms.delete_alias(&user(CAROL), alias, false).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    world.rooms.delete_alias(&user(ALICE), alias, false).await.unwrap();
    assert_eq!(world.content(&room_id, "m.room.canonical_alias", ""), json!({}));
    assert!(world.rooms.list_aliases(&room_id).await.unwrap().is_empty());
}
