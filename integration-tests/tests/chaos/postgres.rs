//! PostgreSQL is restarted, crashes, hangs, is full, or fails over to its replica.

use std::{path::Path, process::Command, time::Duration};

use myelin_integration_tests::{Cluster, Options, Topology, load::Plan, wire::Wire};
use myelin_testing::{TestDatabase, TestPostgres, TestRedis};

use crate::{Case, section};

fn case(name: &'static str) -> Case {
    Case::new("PostgreSQL", name)
}

/// A cluster on a PostgreSQL of its own.
async fn on(postgres: &TestPostgres, redis: &TestRedis, topology: Topology) -> Cluster {
    let database = TestDatabase::empty_on(postgres.server()).await;
    Cluster::start_in(database, redis.socket(), topology).await
}

#[tokio::test]
async fn postgresql_is_restarted() {
    let (postgres, redis) = (TestPostgres::start().await, TestRedis::start());
    case("restarted")
        .survives(on(&postgres, &redis, Topology::default()).await, async |_| {
            postgres.stop().await;
            postgres.start_again().await;
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn postgresql_crashes_and_is_away_for_ten_seconds() {
    let (postgres, redis) = (TestPostgres::start().await, TestRedis::start());
    case("crashed, and away for 10 s")
        .behind_nginx()
        .survives(on(&postgres, &redis, Topology::full()).await, async |_| {
            postgres.crash().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            postgres.start_again().await;
        })
        .await;
}

/// The processes of PostgreSQL that serve the cluster.
async fn backends(cluster: &Cluster) -> Vec<i32> {
    const SQL: &str =
        "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";

    let database = cluster.database();
    let client = database.server().connect("postgres").await.expect("the server is up");
    let rows = client.query(SQL, &[&database.name()]).await.expect("everybody may ask");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn all_connections_are_cut() {
    case("all connections are cut, three times")
        .survives(Cluster::start(Topology::default()).await, async |cluster| {
            let server = cluster.database().server();
            let client = server.connect("postgres").await.expect("the server is up");
            for _ in 0..3 {
                for backend in backends(cluster).await {
                    let cut = client.execute("SELECT pg_terminate_backend($1)", &[&backend]).await;
                    cut.expect("a superuser may do that");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn all_connections_hang_for_ten_seconds() {
    case("all connections hang for 10 s (SIGSTOP), new ones don't")
        .behind_nginx()
        .survives(crate::full().await, async |cluster| {
            let backends = backends(cluster).await;
            signal("STOP", &backends);
            tokio::time::sleep(Duration::from_secs(10)).await;
            signal("CONT", &backends);
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn postgresql_hangs_for_ten_seconds() {
    let (postgres, redis) = (TestPostgres::start().await, TestRedis::start());
    let cluster = on(&postgres, &redis, Topology::full()).await;
    case("all of it hangs for 10 s (SIGSTOP)")
        .behind_nginx()
        .survives(cluster, async |cluster| {
            let mut all = vec![postgres.process_id()];
            all.extend(backends(cluster).await);
            signal("STOP", &all);
            tokio::time::sleep(Duration::from_secs(10)).await;
            signal("CONT", &all);
        })
        .await;
}

/// Some may have ended meanwhile.
fn signal(name: &str, processes: &[i32]) {
    for process in processes {
        let _ = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).output();
    }
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn the_disk_is_full_for_a_while() {
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        #[expect(clippy::print_stderr, reason = "who runs this must know that nothing was tried")]
        {
            eprintln!("skipped: a small disk can't be mounted here, which only root may do");
        }
        return;
    };
    let (postgres, redis) = (TestPostgres::start().await, TestRedis::start());
    let database = TestDatabase::empty_on(postgres.server()).await;
    let admin = postgres.server().connect("postgres").await.expect("the server is up");
    let location = folder.path().display();
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{location}'");
    admin.batch_execute(&tablespace).await.expect("the folder is the server's");
    let moved = format!("ALTER DATABASE {} SET TABLESPACE small", database.name());
    admin.batch_execute(&moved).await.expect("nobody is connected yet");
    let cluster = Cluster::start_in(database, redis.socket(), Topology::default()).await;
    // Enough for a table to grow, however much room its last page had.
    let plan = Plan { messages: 40, pause: Duration::from_millis(100), ..Plan::steady() };
    case("disk full for 10 s")
        .saying(plan)
        .survives(cluster, async |cluster| {
            disk.fill();
            tokio::time::sleep(Duration::from_secs(10)).await;
            disk.empty();
            let logs = cluster.daemons().iter().map(|daemon| daemon.log());
            assert!(logs.into_iter().any(|log| log.contains("53100")), "the disk was never full");
        })
        .await;
}

/// A file system in memory that only PostgreSQL and root write to.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        // PostgreSQL must reach what is in it.
        let reachable = run(Command::new("chmod").arg("711").arg(folder.parent()?))
            || folder.parent() == Some(Path::new("/tmp"));
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(folder));
        if !(reachable && mounted) {
            return None;
        }
        let disk = Self(folder);
        run(Command::new("chown").arg("postgres").arg(folder)).then_some(disk)
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        // It ends with the error that there is no space left, which is what is wanted.
        let _ = std::io::copy(
            &mut std::io::repeat(0),
            &mut std::fs::File::create(self.filler()).expect("the disk is there"),
        );
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).output();
    }
}

/// Two servers of which the second has all that the first has committed.
async fn synchronous() -> (TestPostgres, TestPostgres) {
    let first = TestPostgres::start().await;
    let second = first.replica().await;
    let admin = first.server().connect("postgres").await.expect("the server is up");
    let synchronous = "ALTER SYSTEM SET synchronous_standby_names = '*'";
    admin.batch_execute(synchronous).await.expect("a superuser may do that");
    admin.batch_execute("SELECT pg_reload_conf()").await.expect("a superuser may do that");
    (first, second)
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_synchronous_replica_takes_over() {
    let ((first, second), redis) = (synchronous().await, TestRedis::start());
    let database = TestDatabase::empty_on(first.server()).await;
    let hosts = format!("{},{}", first.server().host(), second.server().host());
    let options = Options::default().set("database", section(&database, &hosts));
    let topology = Topology { options, ..Topology::full() };
    let cluster = Cluster::start_in(database, redis.socket(), topology).await;
    case("crashed; a synchronous replica takes over")
        .behind_nginx()
        .survives(cluster, async |_| {
            first.crash().await;
            second.promote().await;
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_replica_takes_over_from_a_host_that_went_silent() {
    let ((first, second), redis) = (synchronous().await, TestRedis::start());
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let database = TestDatabase::empty_on(first.server()).await;
    let socket = format!(".s.PGSQL.{}", first.server().port());
    let wire =
        Wire::unix(&folder.path().join(&socket), Path::new(&first.server().host()).join(&socket)).await;
    let hosts = format!("{},{}", folder.path().display(), second.server().host());
    let options = Options::default().set("database", section(&database, &hosts));
    let topology = Topology { options, ..Topology::full() };
    let cluster = Cluster::start_in(database, redis.socket(), topology).await;
    case("its host goes silent, connections are not even closed; a synchronous replica takes over")
        .behind_nginx()
        .survives(cluster, async |_| {
            wire.go_silent();
            first.crash().await;
            second.promote().await;
        })
        .await;
}
