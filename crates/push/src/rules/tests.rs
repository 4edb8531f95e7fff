use std::time::Duration;

use myelin_leases::Session;
use myelin_replication::Stream as _;
use myelin_testing::MigratedDatabase;
use ruma::{event_id, push::NewPatternedPushRule, room_id, user_id};

use super::*;
use crate::PushBits;

async fn rules(database: &MigratedDatabase) -> PushRules {
    let database = (**database).clone();
    let session =
        Session::register(database.clone(), "main", &[PushRulesStream::NAME], Duration::ZERO).await.unwrap();
    let feed = Feed::<PushRulesStream>::open(database.clone()).await.unwrap();
    let writer = StreamWriter::start(database.clone(), session, feed.clone());
    PushRules::new(database, feed, writer)
}

fn alice() -> &'static UserId {
    user_id!("@alice:x")
}

fn keyword(word: &str) -> NewPushRule {
    NewPushRule::Content(NewPatternedPushRule::new(word.to_owned(), word.to_owned(), vec![]))
}

async fn bits(rules: &PushRules, audience: &mut Audience, body: &str) -> PushBits {
    let content = serde_json::json!({ "body": body }).to_string();
    let event = PushEvent {
        room_id: room_id!("!r:x"),
        event_id: event_id!("$e"),
        sender: user_id!("@sue:x"),
        event_type: "m.room.message",
        state_key: None,
        content: &content,
        joined_members: 3,
        sender_may_notify_room: false,
    };
    rules.evaluate(audience, &event).await.unwrap().for_user(alice())
}

#[tokio::test]
async fn a_change_of_rules_reaches_the_rooms_and_the_next_process() {
    let database = MigratedDatabase::create().await;
    let rules = rules(&database).await;
    let mut audience = Audience::new();
    audience.set_member(alice(), None);
    assert_eq!(bits(&rules, &mut audience, "cake").await, PushBits::NOTIFY);

    let before = (*rules.feed().position()).clone();
    rules.put_rule(alice(), keyword("cake"), None, None).await.unwrap();
    assert_eq!(bits(&rules, &mut audience, "cake").await, PushBits::NONE);
    let now = rules.feed().position();
    assert!(rules.changed_since(alice(), &before, &now).await.unwrap());
    assert!(!rules.changed_since(alice(), &now, &now).await.unwrap());
    assert!(!rules.changed_since(user_id!("@other:x"), &before, &now).await.unwrap());

    let feed = Feed::<PushRulesStream>::open((*database).clone()).await.unwrap();
    let other = PushRules::new((*database).clone(), feed, rules.0.writer.clone());
    let mut elsewhere = Audience::new();
    elsewhere.set_member(alice(), None);
    assert_eq!(bits(&other, &mut elsewhere, "cake").await, PushBits::NONE);
    assert_eq!(other.content(alice()).await.unwrap(), rules.content(alice()).await.unwrap());

    rules.remove_rule(alice(), RuleKind::Content, "cake".to_owned()).await.unwrap();
    assert_eq!(bits(&rules, &mut audience, "cake").await, PushBits::NOTIFY);
}

#[tokio::test]
async fn nothing_is_written_where_nothing_changes() {
    let database = MigratedDatabase::create().await;
    let rules = rules(&database).await;
    let master = ".m.rule.master".to_owned();
    let start = (*rules.feed().position()).clone();
    rules.set_enabled(alice(), RuleKind::Override, master.clone(), false).await.unwrap();
    assert_eq!(*rules.feed().position(), start);
    rules.set_enabled(alice(), RuleKind::Override, master.clone(), true).await.unwrap();
    let changed = (*rules.feed().position()).clone();
    assert_ne!(changed, start);
    rules.set_enabled(alice(), RuleKind::Override, master, true).await.unwrap();
    assert_eq!(*rules.feed().position(), changed);
}

#[tokio::test]
async fn what_is_not_there_or_not_the_users_can_not_be_changed() {
    let database = MigratedDatabase::create().await;
    let rules = rules(&database).await;
    let id = |id: &str| id.to_owned();
    let removed = rules.remove_rule(alice(), RuleKind::Override, id(".m.rule.master")).await;
    assert!(matches!(removed, Err(PushRuleError::ServerDefault)));
    let removed = rules.remove_rule(alice(), RuleKind::Content, id("x")).await;
    assert!(matches!(removed, Err(PushRuleError::NotFound)));
    let enabled = rules.set_enabled(alice(), RuleKind::from("nonsense"), id("x"), true).await;
    assert!(matches!(enabled, Err(PushRuleError::NotFound)));
    let actions = rules.set_actions(alice(), RuleKind::Room, id("x"), vec![]).await;
    assert!(matches!(actions, Err(PushRuleError::NotFound)));
    let put = rules.put_rule(alice(), keyword("x"), Some(id("y")), None).await;
    assert!(matches!(put, Err(PushRuleError::Insert(InsertPushRuleError::UnknownRuleId))));
    assert!(rules.ruleset(alice()).await.unwrap().content.get("x").is_none(), "half a change is none");
}

#[tokio::test]
async fn an_audience_that_missed_too_many_changes_asks_for_all_members_again() {
    let database = MigratedDatabase::create().await;
    let rules = rules(&database).await;
    let mut audience = Audience::new();
    audience.set_member(alice(), None);
    bits(&rules, &mut audience, "x").await;
    let memory = &rules.0.memory;
    let rows: Vec<_> = (0..=i64::try_from(RECENT_CHANGES).unwrap())
        .map(|id| Stamped {
            id: StreamId(id),
            writer: myelin_types::WriterId(1),
            row: PushRulesRow { user_id: user_id!("@other:x").to_owned(), changes: "{}".into() },
        })
        .collect();
    memory.apply(&Batch { rows: &rows[..1], position: &Position::default() });
    memory.tell(&mut audience);
    assert!(audience.unknown.is_empty(), "somebody else's rules changed");
    memory.apply(&Batch { rows: &rows, position: &Position::default() });
    memory.tell(&mut audience);
    assert_eq!(audience.unknown, [alice()]);
    assert_eq!(audience.generation, 2 + RECENT_CHANGES as u64);
}

#[tokio::test]
async fn rules_changed_at_once_are_all_kept() {
    let database = MigratedDatabase::create().await;
    let rules = rules(&database).await;
    let puts = (0..10).map(|number| rules.put_rule(alice(), keyword(&number.to_string()), None, None));
    futures_util::future::try_join_all(puts).await.unwrap();
    assert_eq!(rules.ruleset(alice()).await.unwrap().content.len(), 11);
}

#[test]
fn a_room_writer_can_evaluate_on_any_thread() {
    fn is_send<T: Send>(_: impl FnOnce(PushRules) -> T) {}
    is_send(|rules| async move {
        let mut audience = Audience::new();
        bits(&rules, &mut audience, "x").await
    });
}
