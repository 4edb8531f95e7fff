//! What a stream's writer does with its queue: transactions, one after the other, and notices of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use myelin_leases::Session;
use myelin_storage::{
    Database, StorageError, Transaction,
    streams::{self, Fate},
};
use myelin_types::{StreamId, WriterId};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{Job, Reply, Work, WriteError};
use crate::{Feed, Heading, Notice, Stamped, Stream, lane::Ticket, rhythm::Rhythm};

/// Rows in one transaction at most.
const MAX_BATCH_ROWS: usize = 512;
/// How often a writer that has nothing to write looks whether the others have gone ahead.
const KEEP_UP_EVERY: Duration = Duration::from_secs(5);
/// How often a writer asks what became of a transaction whose end it did not hear of, and how many times before who waits for it is
/// told that it failed.
const ASK_EVERY: Duration = Duration::from_millis(250);
const ASK_TIMES: usize = 20;

/// The end of the queue: what commits.
pub(super) struct Committer<S: Stream> {
    database: Database,
    session: Session,
    feed: Feed<S>,
    /// The position after our last commit.
    position: StreamId,
    /// Whether what stands at that position in the database is known: cleared while nobody knows what became of a transaction.
    settled: Arc<AtomicBool>,
    rhythm: Rhythm,
}

/// Requests that share a transaction, and their rows.
struct Group<R> {
    rows: Vec<R>,
    members: Vec<Member>,
}

/// A request of a group.
struct Member {
    /// How many of the group's rows are its own.
    rows: usize,
    ticket: Option<Ticket>,
    reply: Reply,
}

impl Member {
    fn answer(self, outcome: Result<Vec<StreamId>, WriteError>) {
        // The lane first: whoever hears of the failure must find it broken.
        match self.ticket {
            Some(ticket) if outcome.is_ok() => ticket.done(),
            ticket => drop(ticket),
        }
        let _ = self.reply.send(outcome);
    }

    fn is_superseded(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_broken)
    }
}

impl<R> Group<R> {
    fn add(&mut self, rows: Vec<R>, ticket: Option<Ticket>, reply: Reply) {
        let member = Member { rows: rows.len(), ticket, reply };
        if member.is_superseded() {
            return member.answer(Err(WriteError::Superseded));
        }
        self.members.push(member);
        self.rows.extend(rows);
    }
}

/// A transaction that did not happen, with its rows handed back.
struct Failed<R> {
    error: StorageError,
    rows: Vec<R>,
}

impl<S: Stream> Committer<S> {
    pub fn new(database: Database, session: Session, feed: Feed<S>, settled: Arc<AtomicBool>) -> Self {
        let position = feed.position().of(session.writer());
        Self { database, session, feed, position, settled, rhythm: Rhythm::default() }
    }

    /// Serves the queue until there is nobody any more who could write to it.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Job<S::Row>>) {
        let mut next = self.next_job(&mut queue).await;
        while let Some(job) = next.take() {
            match job {
                Job::Transact { work, reply } => {
                    let outcome = self.commit(Some(work), Vec::new()).await;
                    let _ = reply.send(outcome.map_err(|failed| failed.error.into()));
                }
                Job::Append { rows, ticket, reply } => {
                    let mut group = Group { rows: Vec::new(), members: Vec::new() };
                    group.add(rows, ticket, reply);
                    // Whatever came while the last transaction was under way shares this one, and whoever is about to come.
                    while group.rows.len() < MAX_BATCH_ROWS {
                        match self.rhythm.next(&mut queue, group.members.len()).await {
                            Some(Job::Append { rows, ticket, reply }) => group.add(rows, ticket, reply),
                            Some(other) => {
                                next = Some(other);
                                break;
                            }
                            None => break,
                        }
                    }
                    self.commit_group(group, &queue).await;
                }
            }
            if next.is_none() {
                next = self.next_job(&mut queue).await;
            }
        }
    }

    /// Waits for work; without any, keeps up with the other writers now and then.
    async fn next_job(&mut self, queue: &mut mpsc::Receiver<Job<S::Row>>) -> Option<Job<S::Row>> {
        loop {
            let pause = if self.is_settled() { KEEP_UP_EVERY } else { ASK_EVERY };
            match tokio::time::timeout(pause, queue.recv()).await {
                Ok(job) => return job,
                Err(_) => self.keep_up().await,
            }
        }
    }

    /// Moves our position to where the others are: the more alike positions are, the shorter are tokens, and the less is read
    /// in vain by those who catch up.
    async fn keep_up(&mut self) {
        if !self.is_settled() {
            return self.settle().await.unwrap_or_else(|error| self.note_unsettled(&error));
        }
        if self.feed.position().maximum() <= self.position || !self.session.has_claimed(S::NAME) {
            return;
        }
        let (writer, epoch) = (self.session.writer(), self.session.epoch());
        let moved = async {
            let client = self.database.get().await?;
            streams::move_up(&client, S::NAME, writer, epoch).await
        };
        match moved.await {
            Ok(Some((position, writers))) => self.tell(position, writers, Vec::new()).await,
            Ok(None) => self.note_lost(),
            Err(error) => {
                self.settled.store(!error.leaves_commit_open(), Ordering::Release);
                warn!(stream = S::NAME, %error, "keeping up with the other writers");
            }
        }
    }

    /// Gets a position in the stream before the first write.
    async fn join(&mut self) -> Result<(), StorageError> {
        if !self.session.has_claimed(S::NAME) {
            self.session.claim(S::NAME).await?;
            self.feed.catch_up().await?;
            let client = self.database.get().await?;
            let committed = streams::list_positions(&client, S::NAME).await?;
            let own = committed.into_iter().find(|(writer, _)| *writer == self.session.writer());
            self.position = own.map_or(StreamId::ZERO, |(_, position)| position);
        }
        Ok(())
    }

    async fn commit_group(&mut self, group: Group<S::Row>, queue: &mpsc::Receiver<Job<S::Row>>) {
        let Group { rows, members } = group;
        if rows.is_empty() {
            return members.into_iter().for_each(|member| member.answer(Ok(Vec::new())));
        }
        self.rhythm.begin(members.len());
        let outcome = self.commit(None, rows).await;
        self.rhythm.end(members.len(), queue.len());
        let failed = match outcome {
            Ok(ids) => {
                let mut ids = ids.into_iter();
                for member in members {
                    let own = ids.by_ref().take(member.rows).collect();
                    member.answer(Ok(own));
                }
                return;
            }
            Err(failed) => failed,
        };
        // One bad request must not take those down that happened to share its transaction.
        if members.len() > 1 && is_about_the_rows(&failed.error) {
            warn!(stream = S::NAME, error = %failed.error, "a shared transaction failed; trying each request alone");
            let mut rows = failed.rows.into_iter();
            for member in members {
                let own: Vec<_> = rows.by_ref().take(member.rows).collect();
                if member.is_superseded() {
                    member.answer(Err(WriteError::Superseded));
                    continue;
                }
                let outcome = self.commit(None, own).await;
                member.answer(outcome.map_err(|failed| failed.error.into()));
            }
            return;
        }
        let error = Arc::new(failed.error);
        for member in members {
            member.answer(Err(WriteError::Storage(error.clone())));
        }
    }

    /// Writes `rows`, and those that `work` adds, in one transaction, and tells the feed.
    async fn commit(
        &mut self,
        work: Option<Work<S::Row>>,
        rows: Vec<S::Row>,
    ) -> Result<Vec<StreamId>, Failed<S::Row>> {
        let mut stamped = Vec::new();
        let writers = match self.write(work, rows, &mut stamped).await {
            Ok(writers) => writers,
            Err(error) => {
                if matches!(error, StorageError::Fenced) {
                    self.note_lost();
                }
                return Err(Failed { error, rows: stamped.into_iter().map(|stamped| stamped.row).collect() });
            }
        };
        let ids: Vec<StreamId> = stamped.iter().map(|row| row.id).collect();
        if let Some(position) = ids.last().copied() {
            self.tell(position, writers, stamped).await;
        }
        Ok(ids)
    }

    /// Tells the feed, and the other processes, what was committed.
    async fn tell(&mut self, position: StreamId, writers: usize, stamped: Vec<Stamped<S::Row>>) {
        let (writer, previous) = (self.session.writer(), self.position);
        let after = (*self.feed.position()).clone();
        let heading = Heading { writer, previous, position, writers, after };
        let notice = Notice { heading, rows: stamped.into() };
        self.position = position;
        // A gap in our own feed: another writer has joined the stream, or a commit of ours was never told.
        if !self.feed.deliver(&notice)
            && let Err(error) = self.feed.catch_up().await
        {
            error!(stream = S::NAME, %error, "the feed could not catch up with its own writer");
        }
        self.feed.publish(&notice);
    }

    /// The transaction itself; gives how many writers the stream has. The rows are in `stamped` afterwards, whatever
    /// the outcome.
    async fn write(
        &mut self,
        work: Option<Work<S::Row>>,
        rows: Vec<S::Row>,
        stamped: &mut Vec<Stamped<S::Row>>,
    ) -> Result<usize, StorageError> {
        let writer = self.session.writer();
        let unstamped = |row| Stamped { id: StreamId::ZERO, writer, row };
        stamped.extend(rows.into_iter().map(unstamped));
        self.settle().await?;
        self.join().await?;
        let mut client = self.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        if let Some(work) = work {
            stamped.extend(work(&transaction).await?.into_iter().map(unstamped));
        }
        if stamped.is_empty() {
            self.session.check_fence(&transaction).await?;
            transaction.commit().await?;
            return Ok(0);
        }
        let ids = streams::allocate(&transaction, S::NAME, stamped.len()).await?;
        for (row, id) in stamped.iter_mut().zip(ids) {
            row.id = id;
        }
        let last = stamped.last().map_or(StreamId::ZERO, |row| row.id);
        let error = match self.commit_rows(transaction, stamped, last).await {
            Ok(writers) => return Ok(writers),
            Err(error) => error,
        };
        drop(client);
        self.was_committed(last, &error).await.ok_or(error)
    }

    /// The rows, the position and the commit, without waiting in between; gives how many writers the stream has.
    async fn commit_rows(
        &self,
        transaction: Transaction<'_>,
        rows: &[Stamped<S::Row>],
        last: StreamId,
    ) -> Result<usize, StorageError> {
        let flight = transaction.take_off();
        // The position first: a writer that was replaced hears of that, not of rows that collide with its successor's.
        let advanced = streams::advance(&flight, S::NAME, self.me(), (self.position, last)).await?;
        let written = S::persist(&flight, rows).await;
        flight.land(written).await?;
        Ok(advanced.writers())
    }

    /// A connection that broke while the server was committing leaves it open what happened; the position tells. Gives how many
    /// writers the stream has if it was committed. If the database can't be asked, that stays open until [`Self::settle`].
    async fn was_committed(&mut self, last: StreamId, error: &StorageError) -> Option<usize> {
        if !error.leaves_commit_open() {
            return None;
        }
        self.settled.store(false, Ordering::Release);
        for _ in 0..ASK_TIMES {
            match self.ask_fate().await {
                Ok((Fate::Committed(position), writers)) if position == last => {
                    self.settled.store(true, Ordering::Release);
                    return Some(writers);
                }
                Ok((fate, writers)) => {
                    self.accept(fate, writers).await.unwrap_or_else(|error| self.note_unsettled(&error));
                    return None;
                }
                Err(error) => {
                    self.note_unsettled(&error);
                    if matches!(error, StorageError::Fenced) {
                        return None;
                    }
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        None
    }

    /// Nothing is written while it is not known what was: what comes next would seem to follow what came before.
    async fn settle(&mut self) -> Result<(), StorageError> {
        if self.is_settled() {
            return Ok(());
        }
        let (fate, writers) = self.ask_fate().await?;
        self.accept(fate, writers).await
    }

    /// Takes over where the database says that we stand.
    async fn accept(&mut self, fate: Fate, writers: usize) -> Result<(), StorageError> {
        match fate {
            Fate::Sealed(position) => self.tell(position, writers, Vec::new()).await,
            // Its rows were given up here. Other processes find the gap with the next notice, or when they look.
            Fate::Committed(position) => {
                self.feed.catch_up().await?;
                self.position = position;
            }
        }
        self.settled.store(true, Ordering::Release);
        Ok(())
    }

    async fn ask_fate(&self) -> Result<(Fate, usize), StorageError> {
        let client = self.database.get().await?;
        let fate = streams::seal(&client, S::NAME, self.me(), self.position).await?;
        fate.ok_or(StorageError::Fenced)
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    fn note_unsettled(&self, error: &StorageError) {
        match error {
            StorageError::Fenced => self.note_lost(),
            error => warn!(stream = S::NAME, %error, "asking whether a commit succeeded"),
        }
    }

    /// Another process writes in our place: nothing of ours is committed any more, also what was open.
    fn note_lost(&self) {
        self.session.mark_lost();
        self.settled.store(true, Ordering::Release);
    }

    fn me(&self) -> (WriterId, i64) {
        (self.session.writer(), self.session.epoch())
    }
}

/// The server refused a statement, rather than the connection having failed.
pub(crate) fn is_about_the_rows(error: &StorageError) -> bool {
    match error {
        StorageError::Postgres(error) => error.as_db_error().is_some(),
        StorageError::Inconsistent(_) => true,
        StorageError::Unavailable(_) | StorageError::Migration(_) | StorageError::Fenced => false,
    }
}
