//! Duties that processes share out among them, on a real PostgreSQL.

use std::{
    future::ready,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_leases::{Duty, Holder, Session, Share};
use myelin_testing::MigratedDatabase;

const DUTY: Duty = Duty { name: "work", shards: 16 };
const PATIENCE: Duration = Duration::from_secs(30);

/// What was told to gain and to give up.
#[derive(Debug, Default)]
struct Hands(Mutex<Vec<u16>>);

impl Hands {
    fn held(&self) -> Vec<u16> {
        let mut held = self.0.lock().unwrap().clone();
        held.sort_unstable();
        held
    }
}

impl Holder for Hands {
    fn gained<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()> {
        self.0.lock().unwrap().extend(shards);
        Box::pin(ready(()))
    }

    fn give_up<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()> {
        self.0.lock().unwrap().retain(|shard| !shards.contains(shard));
        Box::pin(ready(()))
    }
}

struct Process {
    session: Session,
    share: Share,
    hands: Arc<Hands>,
}

impl Process {
    async fn start(database: &MigratedDatabase, name: &str) -> Self {
        let session = Session::register((**database).clone(), name, &[], Duration::ZERO).await.unwrap();
        let hands = Arc::new(Hands::default());
        let holder: Arc<dyn Holder> = hands.clone();
        let weak: Weak<dyn Holder> = Arc::downgrade(&holder);
        let share = Share::start(session.clone(), DUTY, Some(weak)).await.unwrap();
        Self { session, share, hands }
    }

    fn held(&self) -> Vec<u16> {
        let mut held = self.share.held();
        held.sort_unstable();
        assert_eq!(held, self.hands.held(), "the holder was told of each part once");
        held
    }

    fn name(&self) -> &str {
        self.session.name()
    }

    /// Waits until each part is with its heir among these processes, by the heir's own word and by what is seen here.
    async fn sees(&self, processes: &[&Process]) {
        let assignment = self.share.assignment();
        let agrees = || {
            let seen = assignment.borrow();
            (0..DUTY.shards).all(|shard| {
                let heir = DUTY.heir(shard, processes.iter().map(|process| process.name()));
                let heir =
                    processes.iter().find(|process| Some(process.name()) == heir).expect("there is one");
                let holder = seen.holder(shard).map(|living| living.registration);
                heir.share.held().contains(&shard) && holder == Some(heir.session.registration())
            })
        };
        // The heir's own word comes without a change of what is seen here.
        let agreed = async {
            while !agrees() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed).await.expect("all parts are held, and known to be");
    }
}

#[tokio::test]
async fn parts_go_to_who_comes_and_back_from_who_leaves() {
    let database = MigratedDatabase::create().await;
    let all: Vec<u16> = (0..DUTY.shards).collect();
    let first = Process::start(&database, "first").await;
    assert_eq!(first.held(), all);
    first.sees(&[&first]).await;

    let second = Process::start(&database, "second").await;
    first.share.look_soon();
    first.sees(&[&first, &second]).await;
    second.sees(&[&first, &second]).await;
    assert_eq!(first.held().len() + second.held().len(), all.len());
    assert!(!first.held().is_empty() && !second.held().is_empty());
    let assignment = second.share.assignment().borrow().clone();
    let mut holders: Vec<&str> =
        assignment.holders().into_iter().map(|living| living.name.as_str()).collect();
    holders.sort_unstable();
    assert_eq!(holders, ["first", "second"]);
    assert_eq!(assignment.living().len(), 2);
    assert!(assignment.holder(DUTY.shards).is_none(), "there is no such part");

    second.share.leave().await.unwrap();
    assert!(second.held().is_empty(), "it has nothing once it has left");
    first.sees(&[&first]).await;
    assert_eq!(first.held(), all);
}

#[tokio::test]
async fn who_only_watches_takes_nothing_and_sees_who_does() {
    let database = MigratedDatabase::create().await;
    let worker = Process::start(&database, "worker").await;
    let session = Session::register((*database).clone(), "watcher", &[], Duration::ZERO).await.unwrap();
    let share = Share::start(session, DUTY, None).await.unwrap();
    assert!(share.held().is_empty());
    let assignment = share.assignment().borrow().clone();
    let holder = assignment.holder(3).expect("the worker has it");
    assert_eq!(holder.registration, worker.session.registration());
}

/// Has the process `gone` not be heard of for longer than it may be silent, and not know that yet.
async fn silence(database: &MigratedDatabase) {
    // The lock comes first: a heartbeat that waits for the row must not hold what the trigger waits for.
    const SILENCE: &str = "
        LOCK TABLE instances IN SHARE ROW EXCLUSIVE MODE;
        CREATE FUNCTION silent() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.alive_until := OLD.alive_until; RETURN NEW; END $$;
        UPDATE instances SET alive_until = now() - interval '1 second' WHERE instance_name = 'gone';
        CREATE TRIGGER silent BEFORE UPDATE ON instances FOR EACH ROW
            WHEN (OLD.instance_name = 'gone' AND NEW.epoch = OLD.epoch) EXECUTE FUNCTION silent()";
    database.get().await.unwrap().batch_execute(SILENCE).await.unwrap();
}

#[tokio::test]
async fn who_has_just_come_can_not_tell_who_is_gone() {
    let database = MigratedDatabase::create().await;
    let _gone = Process::start(&database, "gone").await;
    silence(&database).await;
    let heir = Process::start(&database, "heir").await;
    assert!(heir.held().is_empty(), "the silence may have been the database's");
    heir.sees(&[&heir]).await;
}

#[tokio::test]
async fn the_parts_of_a_process_that_is_gone_are_taken_and_it_is_fenced() {
    let database = MigratedDatabase::create().await;
    let gone = Process::start(&database, "gone").await;
    let heir = Process::start(&database, "heir").await;
    heir.sees(&[&gone, &heir]).await;
    silence(&database).await;
    tokio::time::timeout(PATIENCE, gone.session.lost()).await.expect("it learns that it was replaced");
    heir.sees(&[&heir]).await;
    let mut client = database.get().await.unwrap();
    let transaction = myelin_storage::Transaction::begin(&mut client);
    assert!(gone.session.check_fence(&transaction).await.is_err(), "what it still writes is refused");
}
