//! What is asked of a writer of rooms that stands still is done by its heir: people come and go, and rooms are made, once.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::{join, join_all};
use myelin_integration_tests::{Cluster, Daemon, Topology, User, nginx::Nginx, path_segment};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::REPLACED;

/// How long anybody waits: that a writer is gone is known after four seconds.
const AT_MOST: Duration = Duration::from_secs(10);
/// Longer than anybody waits for a writer that works.
const LONG: Duration = Duration::from_secs(2);
/// So many rooms that the writer that stands still is asked for some of them.
const MANY_ROOMS: usize = 16;
/// So many people ask at once.
const PEOPLE: usize = 8;
/// Rooms for each change, so that the writer that stands still has some of them.
const ROOMS: usize = 4;

/// Changes of Bob's membership: what it is before, who asks for what, and what it is afterwards.
const CHANGES: [(&str, Who, &str, &str); 7] = [
    ("leave", Who::Alice, "invite", "invite"),
    ("invite", Who::Bob, "join", "join"),
    ("join", Who::Bob, "leave", "leave"),
    ("join", Who::Alice, "kick", "leave"),
    ("join", Who::Alice, "ban", "ban"),
    ("ban", Who::Alice, "unban", "leave"),
    ("leave", Who::Bob, "knock", "knock"),
];

#[derive(Clone, Copy)]
enum Who {
    Alice,
    Bob,
}

#[tokio::test]
async fn memberships_are_given_though_the_writer_of_the_room_stands_still() {
    let mut cluster = Cluster::start(Topology::default()).await;
    has_rooms(&cluster, "events1").await;
    let (alice, bob) = (cluster.register("worker1", "alice").await, cluster.register("worker1", "bob").await);
    let people = &(alice, bob);
    let changes = CHANGES.into_iter().flat_map(|change| std::iter::repeat_n(change, ROOMS));
    let rooms = join_all(changes.clone().map(|(before, ..)| room(people, before))).await;

    cluster.daemon_mut("events1").pause().await;
    let asked = changes.zip(&rooms).map(async |((_, who, action, after), room)| {
        let asked = Instant::now();
        let answer = change(people, who, action, room).await;
        assert_eq!(answer.0, 200, "{action}: {}", answer.1);
        let member = people.0.at(cluster.api("worker2")).get(&member_of(&people.1, room)).await;
        assert_eq!(member["membership"], after, "{action}");
        (action, asked.elapsed())
    });
    let waited = join_all(asked).await;
    assert!(waited.iter().all(|(_, waited)| *waited < AT_MOST), "{waited:?}");
    assert!(waited.iter().any(|(_, waited)| *waited > LONG), "no request was under way there: {waited:?}");

    wakes_up(&mut cluster, "events1").await;
}

#[tokio::test]
async fn rooms_are_made_and_replaced_though_a_writer_of_rooms_stands_still() {
    let mut cluster = Cluster::start(Topology::default()).await;
    has_rooms(&cluster, "events1").await;
    let alice = cluster.register("worker1", "alice").await;
    let old = join_all((0..MANY_ROOMS).map(|_| alice.create_room(json!({})))).await;

    cluster.daemon_mut("events1").pause().await;
    let made = (0..MANY_ROOMS).map(async |_| in_time(alice.create_room(json!({}))).await);
    let replaced = old.iter().map(async |old| {
        let path = format!("/_matrix/client/v3/rooms/{}/upgrade", path_segment(old));
        let (answer, waited) = in_time(alice.post(&path, json!({ "new_version": "11" }))).await;
        (answer["replacement_room"].as_str().expect("a room").to_owned(), waited)
    });
    let (made, replaced) = join(join_all(made), join_all(replaced)).await;
    for asked in [&made, &replaced] {
        assert!(asked.iter().any(|(_, waited)| *waited > LONG), "no request was under way there: {asked:?}");
    }
    wakes_up(&mut cluster, "events1").await;

    // What it had begun before it slept came to nothing, or was found by its heir.
    let told = old.into_iter().chain(made.into_iter().chain(replaced).map(|(room, _)| room));
    assert_eq!(joined_rooms(&cluster, &alice).await, told.collect());
}

#[tokio::test]
async fn a_room_is_made_once_though_the_worker_that_nginx_chose_stands_still() {
    let mut cluster = Cluster::start(Topology::default()).await;
    has_rooms(&cluster, "events1").await;
    has_rooms(&cluster, "events2").await;
    let nginx = Nginx::start(cluster.folder());
    let people = (0..PEOPLE).map(async |n| User::register(nginx.api(), &format!("user{n}")).await);
    let people = join_all(people).await;
    let probe = people[0].create_room(json!({})).await;
    let chosen = chosen_for(&cluster, &nginx, "/_matrix/client/v3/createRoom").await;

    cluster.daemon_mut(&chosen).pause().await;
    let made = join_all(people.iter().map(|user| in_time(user.create_room(json!({}))))).await;
    assert!(made.iter().any(|(_, waited)| *waited > LONG), "no request was under way there: {made:?}");
    // It writes no rooms, so nobody replaced it: it finds all these requests, and does what it still can of them.
    cluster.daemon_mut(&chosen).resume().await;
    people[0].at(cluster.api(&chosen)).get("/_matrix/client/v3/account/whoami").await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    for (user, (room, _)) in people.iter().zip(made) {
        let told = [(user.id == people[0].id).then(|| probe.clone()), Some(room)];
        assert_eq!(joined_rooms(&cluster, user).await, told.into_iter().flatten().collect());
    }
}

/// Which process nginx passed the first request of this path on to.
async fn chosen_for(cluster: &Cluster, nginx: &Nginx, path: &str) -> String {
    let upstream = loop {
        // It is written a moment after the answer.
        if let Some([_, _, upstream, _]) = nginx.log().into_iter().find(|[_, asked, ..]| asked == path) {
            break upstream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let is_chosen = |daemon: &&Daemon| daemon.api().base().ends_with(&upstream);
    cluster.serving().find(is_chosen).expect("a process of the cluster").name().to_owned()
}

/// The rooms that somebody is in.
async fn joined_rooms(cluster: &Cluster, user: &User) -> BTreeSet<String> {
    let joined = user.at(cluster.api("worker2")).get("/_matrix/client/v3/joined_rooms").await;
    let joined = joined["joined_rooms"].as_array().expect("a list of rooms").iter();
    joined.map(|room| room.as_str().expect("a room").to_owned()).collect()
}

/// What is done at last, and how long it took.
async fn in_time<T>(done: impl Future<Output = T>) -> (T, Duration) {
    let asked = Instant::now();
    let done = tokio::time::timeout(AT_MOST, done).await.expect("an heir does it");
    (done, asked.elapsed())
}

/// A process that stood still goes on, finds out that it was replaced, and ends.
async fn wakes_up(cluster: &mut Cluster, name: &str) {
    let writer = cluster.daemon_mut(name);
    writer.resume().await;
    let status = writer.ended().await;
    assert_eq!(status.code(), Some(REPLACED), "{status}");
}

/// Waits until a writer of rooms has been handed its share, and the others know: it is ready before that.
async fn has_rooms(cluster: &Cluster, name: &str) {
    const SQL: &str = "SELECT count(*) FROM leases JOIN instances USING (writer_id, epoch)
                        WHERE instance_name = $1 AND lease LIKE 'events/%'";
    let database = cluster.database().connect().await.expect("PostgreSQL is there");
    while database.query_one(SQL, &[&name]).await.expect("an answer").get::<_, i64>(0) < 16 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // They look twice a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// A room of Alice's in which Bob's membership is as wanted.
async fn room((alice, bob): &(User, User), membership: &str) -> String {
    let knock = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": [knock] })).await;
    if membership != "leave" {
        alice.invite(&room, bob).await;
    }
    if ["join", "ban"].contains(&membership) {
        bob.join(&room).await;
    }
    if membership == "ban" {
        alice.post(&path_of("ban", &room), json!({ "user_id": bob.id })).await;
    }
    room
}

async fn change((alice, bob): &(User, User), who: Who, action: &str, room: &str) -> (u16, Value) {
    let (user, body) = match who {
        Who::Alice => (alice, json!({ "user_id": bob.id })),
        Who::Bob => (bob, json!({})),
    };
    let answer = user.request(Method::POST, &path_of(action, room), Some(&body)).await;
    (answer.status, answer.body)
}

fn path_of(action: &str, room: &str) -> String {
    match action {
        "knock" => format!("/_matrix/client/v3/knock/{}", path_segment(room)),
        _ => format!("/_matrix/client/v3/rooms/{}/{action}", path_segment(room)),
    }
}

fn member_of(user: &User, room: &str) -> String {
    let (room, user) = (path_segment(room), path_segment(&user.id));
    format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/{user}")
}
