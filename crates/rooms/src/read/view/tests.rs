//! What follows from a user's membership and a room's visibility over time.

use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
use MembershipState::{Ban, Invite, Join, Leave};
use ruma::{RoomVersionId, owned_room_id, user_id};

use super::*;
use crate::RoomNid;

fn view(spans: &[(i64, MembershipState, HistoryVisibility)]) -> View {
    view_with(spans, false)
}

fn view_with(spans: &[(i64, MembershipState, HistoryVisibility)], forgotten: bool) -> View {
    let ends = spans.iter().skip(1).map(|(since, ..)| *since).chain([i64::MAX]);
    let version = RoomVersionId::V12;
    let rules = myelin_events::rules(&version).unwrap();
    let room = RoomInfo { nid: RoomNid(1), room_id: owned_room_id!("!r:a"), version, rules };
    let standing = Standing {
        row: forgotten.then_some(MembershipRow { room_nid: 1, membership: 0, pos: 1, forgotten }),
        spans: spans
            .iter()
            .zip(ends)
            .map(|((since, membership, visibility), until)| Span {
                since: *since,
                until,
                membership: membership.clone(),
                visibility: visibility.clone(),
            })
            .collect(),
        numbers: Numbers { member: 1, visibility: 2, empty: 3, user: None },
    };
    View::new(&Arc::new(room), user_id!("@a:a"), Arc::new(standing))
}

#[test]
fn the_visible_range_follows_membership_and_visibility() {
    let check = |spans: &[(i64, MembershipState, HistoryVisibility)], expected| {
        assert_eq!(view(spans).visible_range(), expected, "{spans:?}");
    };
    let start = i64::MIN;
    check(&[(start, Leave, Shared)], None);
    check(&[(start, Leave, WorldReadable)], Some((start, i64::MAX)));
    // One who joined sees all of a shared history, and one who left nothing that came later.
    check(&[(start, Leave, Shared), (10, Join, Shared)], Some((start, i64::MAX)));
    check(&[(start, Leave, Shared), (10, Join, Shared), (20, Leave, Shared)], Some((start, 20)));
    check(&[(start, Leave, Joined), (10, Join, Joined), (20, Leave, Joined)], Some((9, 20)));
    check(
        &[(start, Leave, Joined), (10, Join, Joined), (20, Leave, Joined), (30, Join, Joined)],
        Some((9, i64::MAX)),
    );
}

#[test]
fn the_history_is_for_who_had_to_do_with_it() {
    let check = |spans: &[(i64, MembershipState, HistoryVisibility)], forgotten: bool, may: bool| {
        assert_eq!(view_with(spans, forgotten).require_history().is_ok(), may, "{spans:?}");
    };
    let start = i64::MIN;
    check(&[(start, Leave, Shared)], false, false);
    check(&[(start, Leave, WorldReadable)], false, true);
    check(&[(start, Leave, WorldReadable), (5, Leave, Shared)], false, false);
    check(&[(start, Leave, Shared), (10, Join, Joined)], false, true);
    let left = [(start, Leave, Shared), (10, Join, Shared), (20, Leave, Shared)];
    check(&left, false, true);
    check(&left, true, false);
    check(&[(start, Leave, Shared), (10, Join, Shared)], true, true);
    check(&[(start, Leave, Shared), (10, Invite, Shared)], false, false);
    check(&[(start, Leave, Invited), (10, Invite, Invited)], false, true);
    check(&[(start, Leave, Invited), (10, Leave, Invited)], false, false);
}

#[test]
fn what_is_seen_reaches_from_the_first_coming_to_the_last_going() {
    let view = view(&[
        (i64::MIN, Leave, Joined),
        (10, Join, Joined),
        (20, Leave, Joined),
        (30, Join, Joined),
        (40, Ban, Joined),
    ]);
    assert_eq!((view.arrived_at(), view.departed_at()), (Some(10), Some(40)));
    assert_eq!(view.visible_range(), Some((9, 40)));
    for (at, expected) in [(0, Leave), (9, Leave), (10, Join), (19, Join), (20, Leave), (40, Ban), (99, Ban)]
    {
        assert_eq!(view.span_after(at).membership, expected, "after {at}");
    }
}

#[test]
fn who_forgot_a_room_sees_no_state_of_it() {
    let left = [(i64::MIN, Leave, Shared), (10, Join, Shared), (20, Leave, Shared)];
    assert!(view_with(&left, false).state_point().is_ok());
    assert!(view_with(&left, true).state_point().is_err());
}

#[test]
fn an_event_is_seen_from_the_state_before_it_and_on_a_branch_from_that_of_the_branch() {
    let mut view = view(&[(i64::MIN, Leave, Shared), (10, Join, Joined), (20, Leave, WorldReadable)]);
    let forks = [
        (1, Fork { membership: Some(Ban), visibility: None }),
        (2, Fork { membership: None, visibility: Some(Invited) }),
    ];
    view.forks.extend(forks);
    let check = |pos: i64, base: Option<i64>, delta: Option<i64>, expected| {
        let event = TimelineEvent {
            room_nid: 1,
            event: StoredEvent {
                event_nid: 1,
                event_id: "$event".to_owned(),
                pos: Some(pos),
                flags: 0,
                state_base: base,
                state_delta: delta,
                redacted_by: None,
                heads: None,
                json: "{}".to_owned(),
            },
            type_sid: 1,
            key_sid: None,
            device_id: None,
            txn_id: None,
            has_relations: false,
        };
        let Viewpoint { membership, history_visibility, .. } = view.before(&event, pos);
        assert_eq!((membership, history_visibility), expected, "at {pos}, {base:?}, {delta:?}");
    };
    check(10, None, None, (Leave, Shared));
    check(11, None, None, (Join, Joined));
    check(20, None, None, (Join, Joined));
    check(21, None, None, (Leave, WorldReadable));
    check(21, Some(10), None, (Join, Joined));
    check(21, Some(10), Some(1), (Ban, Joined));
    check(21, Some(10), Some(2), (Join, Invited));
    check(21, Some(10), Some(3), (Join, Joined));
    check(21, None, Some(1), (Ban, WorldReadable));
}

#[test]
fn a_shared_past_is_for_who_comes_afterwards() {
    let view = view(&[(i64::MIN, Leave, Shared), (10, Join, Shared), (20, Leave, Shared)]);
    for (pos, joined_after) in [(5, true), (10, true), (19, true), (20, false), (25, false)] {
        assert_eq!(view.viewpoint(view.now(), pos, None).joined_after, joined_after, "at {pos}");
    }
}

#[test]
fn who_left_sees_the_state_of_that_time() {
    let joined = (10, Join, Shared);
    let check = |spans: &[(i64, MembershipState, HistoryVisibility)], expected: Option<StatePoint>| {
        assert_eq!(view(spans).state_point().ok(), expected, "{spans:?}");
    };
    let before = (i64::MIN, Leave, Shared);
    check(std::slice::from_ref(&before), None);
    check(&[before.clone(), joined.clone()], Some(StatePoint::Current));
    check(&[before.clone(), joined.clone(), (20, Leave, Shared)], Some(StatePoint::At(20)));
    let banned = (30, Ban, Shared);
    check(&[before.clone(), joined, (20, Leave, Shared), banned], Some(StatePoint::At(20)));
    check(&[before, (10, Leave, WorldReadable)], Some(StatePoint::Current));
}
