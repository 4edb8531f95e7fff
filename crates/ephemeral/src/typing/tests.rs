use std::collections::VecDeque;

use proptest::prelude::*;
use ruma::user_id;

use super::*;

const ROOM: i64 = 1;

fn process(writer: i16, epoch: i64) -> Typing {
    Typing::new(Clock::default(), WriterId(writer), epoch)
}

fn typing_in(typing: &Typing, room_nid: i64) -> Vec<String> {
    let mut users: Vec<String> = typing
        .changed_since(room_nid, &Position::default())
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    users.sort_unstable();
    users
}

#[tokio::test(start_paused = true)]
async fn typing_ends_by_itself() {
    let typing = process(1, 1);
    let amy = user_id!("@amy:a");
    let start = typing.position();
    typing.set(ROOM, amy, Some(Duration::from_secs(30)));
    let began = typing.position();
    assert_eq!(typing.changed_since(ROOM, &start), Some(vec![amy.to_owned()]));
    assert_eq!(typing.changed_since(ROOM, &began), None);
    assert_eq!(typing.changed_since(2, &start), None, "another room");

    typing.0.position.subscribe().wait_for(|position| *position != began).await.unwrap();
    assert_eq!(typing.changed_since(ROOM, &began), Some(vec![]));
}

#[tokio::test(start_paused = true)]
async fn typing_on_is_no_change() {
    let typing = process(1, 1);
    let amy = user_id!("@amy:a");
    typing.set(ROOM, amy, Some(Duration::from_secs(30)));
    let began = typing.position();
    typing.set(ROOM, amy, Some(Duration::from_secs(30)));
    assert_eq!(typing.position(), began);
    typing.set(ROOM, amy, None);
    assert_eq!(typing.changed_since(ROOM, &began), Some(vec![]));
}

#[tokio::test]
async fn subscribers_are_told_before_the_position_moves() {
    let typing = process(1, 1);
    let (seen, reader) = (Arc::new(Mutex::new(Vec::new())), typing.clone());
    let log = seen.clone();
    typing.subscribe(move |change| log.lock().push((change, reader.position())));
    typing.set(7, user_id!("@amy:a"), Some(Duration::from_secs(1)));
    let seen = seen.lock();
    let [(change, position)] = seen.as_slice() else { panic!("one change, not {seen:?}") };
    assert_eq!(change.room_nid, 7);
    assert!(!position.covers(change.writer, change.id));
    assert!(typing.position().covers(change.writer, change.id));
}

/// Processes, and the messages between them that are under way.
struct World {
    processes: Vec<Typing>,
    queue: Arc<Mutex<VecDeque<(usize, TypingMessage)>>>,
}

impl World {
    fn new(count: usize) -> Self {
        let mut world = Self { processes: Vec::new(), queue: Arc::default() };
        for index in 0..count {
            let typing = world.process(index, 1);
            world.processes.push(typing);
        }
        world
    }

    fn process(&self, index: usize, epoch: i64) -> Typing {
        let typing = process(i16::try_from(index).unwrap() + 1, epoch);
        let queue = self.queue.clone();
        typing.publish_to(move |message| queue.lock().push_back((index, message)));
        typing
    }

    fn restart(&mut self, index: usize) {
        self.processes[index] = self.process(index, 2);
    }

    /// Each message goes to everybody but who said it, unless something happens to it on its way there.
    fn deliver_through(&self, mut fate: impl FnMut() -> Fate) {
        let mut late = Vec::new();
        while let Some((from, message)) = { self.queue.lock().pop_front() } {
            for (index, typing) in self.processes.iter().enumerate().filter(|(index, _)| *index != from) {
                match fate() {
                    Fate::Arrives => typing.hear(message.clone()),
                    Fate::IsLost => {}
                    Fate::ArrivesTwice => (0..2).for_each(|_| typing.hear(message.clone())),
                    Fate::IsLate => late.push((index, message.clone())),
                }
            }
        }
        late.into_iter().for_each(|(index, message)| self.processes[index].hear(message));
    }

    fn deliver(&self) {
        self.deliver_through(|| Fate::Arrives);
    }

    /// Lets time pass.
    async fn pass(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.deliver();
        }
    }

    #[track_caller]
    fn all_see(&self, room_nid: i64, users: &[&str]) {
        for (index, typing) in self.processes.iter().enumerate() {
            assert_eq!(typing_in(typing, room_nid), users, "process {index}");
        }
    }
}

/// What becomes of a message on its way to one process.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    IsLost,
    ArrivesTwice,
    IsLate,
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_position_means_the_same_in_each_process() {
    let world = World::new(2);
    world.pass(SECOND).await;
    let [one, two] = &world.processes[..] else { panic!("two were started") };
    let before = one.position();
    one.set(ROOM, user_id!("@amy:a"), Some(30 * SECOND));
    // Nothing is claimed that is not known yet.
    assert_eq!(two.position(), before);
    world.deliver();
    assert_eq!(two.position(), one.position());
    assert_eq!(two.changed_since(ROOM, &before), Some(vec![user_id!("@amy:a").to_owned()]));
    assert_eq!(two.changed_since(ROOM, &one.position()), None);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_asked_for_and_nothing_before_it_is_claimed() {
    let world = World::new(2);
    world.pass(SECOND).await;
    let [one, two] = &world.processes[..] else { panic!("two were started") };
    one.set(ROOM, user_id!("@amy:a"), Some(30 * SECOND));
    world.queue.lock().clear();
    one.set(2, user_id!("@amy:a"), Some(30 * SECOND));
    let message = world.queue.lock().pop_front().unwrap().1;
    let before = two.position();
    two.hear(message);
    assert_eq!(two.position(), before, "a client would miss the other room");
    world.deliver();
    world.all_see(ROOM, &["@amy:a"]);
    world.all_see(2, &["@amy:a"]);

    one.set(ROOM, user_id!("@amy:a"), None);
    world.queue.lock().clear();
    assert_eq!(typing_in(two, ROOM), ["@amy:a"]);
    world.pass(2 * SECOND).await;
    assert_eq!(typing_in(two, ROOM), [""; 0], "also where nothing follows");
}

#[tokio::test(start_paused = true)]
async fn a_new_process_asks_and_one_that_comes_back_is_heard() {
    let mut world = World::new(3);
    world.pass(SECOND).await;
    world.processes[0].set(ROOM, user_id!("@amy:a"), Some(100 * SECOND));
    world.processes[1].set(ROOM, user_id!("@bob:a"), Some(100 * SECOND));
    world.deliver();
    world.restart(0);
    world.pass(SECOND).await;
    assert_eq!(typing_in(&world.processes[0], ROOM), ["@bob:a"]);
    world.processes[0].set(ROOM, user_id!("@amy:a"), None);
    world.pass(SECOND).await;
    world.all_see(ROOM, &["@bob:a"]);
}

#[tokio::test(start_paused = true)]
async fn the_typing_of_a_process_that_died_ends_and_of_one_that_lives_goes_on() {
    let mut world = World::new(3);
    world.pass(SECOND).await;
    world.processes[0].set(ROOM, user_id!("@amy:a"), Some(10 * SECOND));
    world.processes[1].set(ROOM, user_id!("@bob:a"), Some(10 * SECOND));
    world.deliver();
    world.restart(0);
    tokio::time::sleep(9 * SECOND).await;
    world.processes[1].set(ROOM, user_id!("@bob:a"), Some(100 * SECOND));
    // The others take it for over before they hear that it is not.
    let later = std::mem::take(&mut *world.queue.lock());
    tokio::time::sleep(10 * SECOND).await;
    world.queue.lock().extend(later);
    world.pass(5 * SECOND).await;
    world.all_see(ROOM, &["@bob:a"]);
}

#[tokio::test(start_paused = true)]
async fn who_says_it_later_is_right_whoever_is_heard_first() {
    let world = World::new(3);
    world.pass(SECOND).await;
    let amy = user_id!("@amy:a");
    world.processes[0].set(ROOM, amy, Some(100 * SECOND));
    let first = world.queue.lock().pop_front().unwrap();
    world.processes[1].hear(first.1.clone());
    world.processes[1].set(ROOM, amy, None);
    world.deliver();
    world.queue.lock().push_back(first);
    world.deliver();
    world.all_see(ROOM, &[]);
}

#[test]
fn a_room_has_a_bound() {
    let mut room = Room::default();
    let now = Instant::now();
    for number in 0..1_000_u64 {
        let stamp = Stamp { count: number, said_by: WriterId(1), is_timeout: false };
        let user_id = format!("@user{number}:a").try_into().unwrap();
        let word = Word { room_nid: ROOM, user_id, timeout_ms: None, stamp, id: StreamId(1) };
        let until = (number % 2 == 0).then_some(now + SECOND);
        room.take(WriterId(1), &word, until, now, false);
    }
    assert_eq!(room.typing().count(), 100);
    assert!(room.words_after(ROOM, WriterId(1), StreamId::ZERO, now).count() <= 200);
}

/// What a client knows that asks now this process and now that.
#[derive(Default)]
struct Client {
    position: Position,
    rooms: HashMap<i64, Vec<String>>,
}

impl Client {
    fn ask(&mut self, typing: &Typing) {
        let position = typing.position();
        for room_nid in ROOMS {
            if typing.changed_since(room_nid, &self.position).is_some() {
                self.rooms.insert(room_nid, typing_in(typing, room_nid));
            }
        }
        self.position = position;
    }
}

const ROOMS: std::ops::Range<i64> = 1..3;

#[tokio::test(start_paused = true)]
async fn a_client_that_was_told_more_hears_what_its_new_process_only_learns_from_the_end() {
    let world = World::new(2);
    world.pass(SECOND).await;
    let (amy, mut client) = (user_id!("@amy:a"), Client::default());
    world.processes[0].set(ROOM, amy, Some(30 * SECOND));
    client.ask(&world.processes[0]);
    world.processes[0].set(ROOM, amy, None);
    world.queue.lock().clear();
    world.pass(2 * SECOND).await;
    client.ask(&world.processes[1]);
    assert_eq!(client.rooms[&ROOM], [""; 0]);
}

/// Something that happens in the property below: who says what of whom, and where a client asks after that.
type Said = (usize, i64, usize, bool, usize);

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        2 => Just(Fate::Arrives),
        3 => Just(Fate::IsLost),
        1 => Just(Fate::ArrivesTwice),
        1 => Just(Fate::IsLate),
    ];
    proptest::collection::vec(fate, 1..40)
}

/// What all processes and a client come to know, beside what was said last.
async fn play(said: Vec<Said>, fates: Vec<Fate>) {
    let users = [user_id!("@amy:a"), user_id!("@bob:a"), user_id!("@cat:a")];
    let (world, mut client, mut last) = (World::new(3), Client::default(), HashMap::new());
    let mut fates = fates.into_iter().cycle();
    for (process, room_nid, user, types, asks) in said {
        // Stamps of processes that have not heard of each other are as good as their clocks.
        std::thread::sleep(Duration::from_millis(2));
        tokio::time::sleep(Duration::from_millis(5)).await;
        world.processes[process].set(room_nid, users[user], types.then_some(100 * SECOND));
        last.insert((room_nid, user), types);
        world.deliver_through(|| fates.next().unwrap_or(Fate::Arrives));
        client.ask(&world.processes[asks]);
    }
    world.pass(5 * SECOND).await;
    world.processes.iter().for_each(|typing| client.ask(typing));
    for room_nid in ROOMS {
        let typing = (0..3).filter(|user| last.get(&(room_nid, *user)) == Some(&true));
        let typing: Vec<_> = typing.map(|user| users[user].as_str()).collect();
        world.all_see(room_nid, &typing);
        let told = client.rooms.get(&room_nid).cloned().unwrap_or_default();
        assert_eq!(told, typing, "the client, of room {room_nid}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn all_come_to_see_the_same_whatever_happens_to_messages(
        said in proptest::collection::vec((0..3_usize, ROOMS, 0..3_usize, any::<bool>(), 0..3_usize), 1..30),
        fates in fates(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(play(said, fates));
    }
}
