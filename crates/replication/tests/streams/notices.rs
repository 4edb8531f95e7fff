//! Streams over several processes that tell each other through a real Redis.

use std::time::Duration;

use myelin_replication::{Notices, NoticesOptions, RedisAddress, Selector, Topic};
use myelin_storage::tls::{Authorities, ServerCertificate, TlsOptions};
use myelin_testing::{MigratedDatabase, TestRedis, TestSentinel, certificate, free_port};
use myelin_types::{Position, StreamId};

use crate::words::{Process, database, process, words};

/// Longer than any test: what is seen was told.
pub const NEVER: Duration = Duration::from_secs(3600);
/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn options(redis: &TestRedis, server_name: &str, look_every: Duration) -> NoticesOptions {
    NoticesOptions {
        address: RedisAddress::Unix(redis.socket()),
        username: None,
        password: None,
        database: None,
        tls: None,
        server_name: server_name.to_owned(),
        look_every,
    }
}

/// A process that hears others, and is heard.
async fn connected(database: &MigratedDatabase, name: &str, options: NoticesOptions) -> (Process, Notices) {
    let process = process(database, name).await;
    let notices = Notices::start(options).unwrap();
    notices.join(&process.feed);
    (process, notices)
}

impl Process {
    pub async fn say(&self, word: &str) -> StreamId {
        self.writer.append(words(&[word])).await.unwrap()[0]
    }

    /// Waits for the notice, without asking the database for it.
    async fn is_told(&self, id: StreamId, by: &Process) -> bool {
        let mut positions = self.feed.changes();
        let writer = by.session.writer();
        let told = positions.wait_for(|position| position.covers(writer, id));
        tokio::time::timeout(PATIENCE, told).await.is_ok()
    }
}

/// Until the one hears the other, words may be lost; each that is said leads to the ones before.
pub async fn until_heard(speaker: &Process, listener: &Process) {
    for _ in 0..200 {
        let id = speaker.say("hello").await;
        let mut positions = listener.feed.changes();
        let told = positions.wait_for(|position| position.covers(speaker.session.writer(), id));
        if tokio::time::timeout(Duration::from_millis(100), told).await.is_ok() {
            return;
        }
    }
    panic!("nothing was heard");
}

#[tokio::test]
async fn what_one_process_commits_the_others_are_told() {
    let (redis, database) = (TestRedis::start(), database().await);
    let (one, _one) = connected(&database, "one", options(&redis, "a.test", NEVER)).await;
    let (other, _other) = connected(&database, "other", options(&redis, "a.test", NEVER)).await;
    until_heard(&one, &other).await;
    until_heard(&other, &one).await;
    let before = other.seen().len();
    let mut last = StreamId::ZERO;
    for number in 0..100 {
        last = one.say(&number.to_string()).await;
    }
    assert!(other.is_told(last, &one).await);
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(other.seen()[before..], expected, "each once, in order");
}

#[tokio::test]
async fn without_redis_and_after_an_empty_one_came_back_nothing_is_missed() {
    let (mut redis, database) = (TestRedis::start(), database().await);
    let often = Duration::from_millis(300);
    let (one, _one) = connected(&database, "one", options(&redis, "a.test", often)).await;
    let (other, _other) = connected(&database, "other", options(&redis, "a.test", NEVER)).await;
    until_heard(&one, &other).await;
    until_heard(&other, &one).await;

    redis.kill();
    let lost = one.say("nobody hears this").await;
    let seen = other.say("but one looks").await;
    assert!(one.is_told(seen, &other).await, "who looks now and then sees it");

    redis.start_again();
    assert!(other.is_told(lost, &one).await, "who connects anew looks");
    until_heard(&one, &other).await;
    let heard = |word: &str| other.seen().iter().filter(|seen| *seen == word).count();
    assert_eq!(heard("nobody hears this"), 1);
}

#[tokio::test]
async fn a_process_that_starts_without_redis_connects_when_it_comes() {
    let (mut redis, database) = (TestRedis::start(), database().await);
    redis.kill();
    let (one, _one) = connected(&database, "one", options(&redis, "a.test", NEVER)).await;
    let (other, _other) = connected(&database, "other", options(&redis, "a.test", NEVER)).await;
    let early = one.say("early").await;
    redis.start_again();
    assert!(other.is_told(early, &one).await);
    until_heard(&one, &other).await;
}

#[tokio::test]
async fn homeservers_on_one_redis_do_not_meet() {
    let redis = TestRedis::start();
    let (here, there) = (database().await, database().await);
    let (one, _one) = connected(&here, "one", options(&redis, "a.test", NEVER)).await;
    let (other, _other) = connected(&here, "other", options(&redis, "a.test", NEVER)).await;
    let (stranger, _stranger) = connected(&there, "one", options(&redis, "b.test", NEVER)).await;
    until_heard(&one, &other).await;
    let secret = one.say("secret").await;
    assert!(other.is_told(secret, &one).await);
    assert_eq!(stranger.seen(), Vec::<String>::new());
    assert_eq!(*stranger.feed.position(), Position::default(), "not even that something was said");
}

/// Follows one letter.
struct Letter(u8);

impl Selector for Letter {
    fn select(&self, topics: &[Option<Topic>], take_in: &mut dyn FnMut(&[bool])) {
        let is_wanted =
            |topic: &Option<Topic>| topic.is_none_or(|topic| topic.for_all || topic.of == i64::from(self.0));
        take_in(&topics.iter().map(is_wanted).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_concerns_nobody_here_is_passed_over() {
    let (redis, database) = (TestRedis::start(), database().await);
    let (one, _one) = connected(&database, "one", options(&redis, "a.test", NEVER)).await;
    let (other, _other) = connected(&database, "other", options(&redis, "a.test", NEVER)).await;
    until_heard(&one, &other).await;
    other.feed.select_by(Letter(b'b'));
    // Who has just connected may read some from the database.
    let mut before = usize::MAX;
    while before != other.seen().len() {
        before = other.seen().len();
        let id = one.say("zero").await;
        assert!(other.is_told(id, &one).await);
    }
    for word in ["apple", "banana", "cherry!", "date", ""] {
        let id = one.say(word).await;
        assert!(other.is_told(id, &one).await, "the position moves in any case");
    }
    assert_eq!(other.seen()[before..], ["banana", "cherry!", ""]);
    let lost = one.writer.append(words(&["elder", "fig", "blueberry"])).await.unwrap();
    assert!(other.is_told(lost[2], &one).await);
    assert_eq!(other.seen()[before..], ["banana", "cherry!", "", "blueberry"]);
}

#[tokio::test]
async fn more_than_a_message_holds_is_read_from_the_database() {
    let (redis, database) = (TestRedis::start(), database().await);
    let (one, _one) = connected(&database, "one", options(&redis, "a.test", NEVER)).await;
    let (other, _other) = connected(&database, "other", options(&redis, "a.test", NEVER)).await;
    until_heard(&one, &other).await;
    let long = "long ".repeat(20_000);
    let id = one.say(&long).await;
    assert!(other.is_told(id, &one).await);
    assert_eq!(other.seen().last(), Some(&long));
}

#[tokio::test]
async fn redis_may_want_tls_and_a_password() {
    let (port, password) = (free_port(), "secret");
    let (redis, database) = (TestRedis::start_with_tls(port, password), database().await);
    let tls = TlsOptions {
        server_certificate: ServerCertificate::TrustedForHost,
        authorities: Some(Authorities::File(certificate("ca.crt"))),
        client_certificate: None,
    };
    let options = || NoticesOptions {
        address: RedisAddress::Tcp("localhost".to_owned(), port),
        password: Some(password.to_owned()),
        database: Some(3),
        tls: Some(tls.client_config().unwrap()),
        ..options(&redis, "a.test", NEVER)
    };
    let (one, _one) = connected(&database, "one", options()).await;
    let (other, _other) = connected(&database, "other", options()).await;
    until_heard(&one, &other).await;
    let stranger = NoticesOptions { password: Some("guessed".to_owned()), ..options() };
    let stranger = Notices::start(stranger).unwrap();
    assert!(other.is_told(one.say("heard").await, &one).await);
    assert!(!stranger.is_connected());
}

#[tokio::test]
async fn all_follow_the_sentinels_to_another_master() {
    let (mut redis, database) = (TestSentinel::start(), database().await);
    let options = || NoticesOptions {
        address: RedisAddress::Sentinel {
            sentinels: vec![("127.0.0.1".to_owned(), redis.port())],
            service: TestSentinel::MASTER.to_owned(),
            password: None,
        },
        username: None,
        password: Some(TestSentinel::PASSWORD.to_owned()),
        database: None,
        tls: None,
        server_name: "a.test".to_owned(),
        look_every: NEVER,
    };
    let (one, _one) = connected(&database, "one", options()).await;
    let (other, _other) = connected(&database, "other", options()).await;
    until_heard(&one, &other).await;
    redis.kill_master();
    let lost = one.say("nobody hears this").await;
    until_heard(&one, &other).await;
    assert!(other.feed.position().covers(one.session.writer(), lost));
    until_heard(&other, &one).await;
}
