//! [`PushRules`]: every user's rules ([spec](https://spec.matrix.org/v1.19/client-server-api/#push-rules)).

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use myelin_replication::{Batch, Feed, Stamped, StreamWriter, WriteError};
use myelin_storage::{Database, StorageError, push_rules};
use myelin_types::{Position, StreamId};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    push::{Action, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind, Ruleset},
};
use tracing::warn;

use crate::{
    Audience, PushEvent, PushOutcome, PushRulesRow, PushRulesStream, compile::CompiledRules,
    evaluate::evaluate, event::EventView, replaced, ruleset,
};

/// Users whose rules are remembered.
const CAPACITY: usize = 50_000;
/// Changes that audiences can catch up with one by one; after more, they ask for all members again.
const RECENT_CHANGES: usize = 1024;

/// Why rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    /// There is no such rule.
    #[error("The push rule was not found")]
    NotFound,
    /// There is no such kind of rules.
    #[error("Unknown kind of push rules")]
    UnknownKind,
    /// The server's rules can be disabled, but not removed.
    #[error("Server-default rules cannot be removed")]
    ServerDefault,
    /// The user has as many rules as one may have.
    #[error("Too many push rules")]
    TooMany,
    /// The rule's id, or the place where it is to go, is not possible.
    #[error(transparent)]
    Insert(#[from] InsertPushRuleError),
    /// Nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What is remembered of a user's rules.
#[derive(Clone, Default)]
enum Known {
    /// Not read yet.
    #[default]
    Nothing,
    /// The server's default.
    Default,
    /// Changed, at this place of the stream.
    Changed(StreamId, Arc<ChangedRules>),
}

struct ChangedRules {
    changes: Arc<str>,
    compiled: Arc<CompiledRules>,
}

/// The push rules of all users. Clones are the same.
#[derive(Clone)]
pub struct PushRules(Arc<Inner>);

struct Inner {
    database: Database,
    feed: Feed<PushRulesStream>,
    writer: StreamWriter<PushRulesStream>,
    memory: Arc<Memory>,
}

struct Memory {
    users: Cache<OwnedUserId, Arc<Mutex<Known>>>,
    /// How many changes there were, and who made the latest.
    generation: AtomicU64,
    recent: Mutex<VecDeque<OwnedUserId>>,
}

impl std::fmt::Debug for PushRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushRules").field("feed", &self.0.feed).finish_non_exhaustive()
    }
}

impl PushRules {
    /// The rules in `database`. `feed` was opened just before.
    pub fn new(
        database: Database,
        feed: Feed<PushRulesStream>,
        writer: StreamWriter<PushRulesStream>,
    ) -> Self {
        let memory = Arc::new(Memory {
            users: Cache::new(CAPACITY),
            generation: AtomicU64::new(0),
            recent: Mutex::new(VecDeque::new()),
        });
        let sink = memory.clone();
        feed.subscribe(move |batch| sink.apply(batch));
        Self(Arc::new(Inner { database, feed, writer, memory }))
    }

    /// The stream of changes, to wait for it or to be told.
    pub fn feed(&self) -> &Feed<PushRulesStream> {
        &self.0.feed
    }

    /// What an event means for the unread counts of the local members but its sender, and of a local user whom it
    /// invites. Asks the database only for the rules of members who have just come and whom no other room has.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn evaluate(
        &self,
        audience: &mut Audience,
        event: &PushEvent<'_>,
    ) -> Result<PushOutcome, StorageError> {
        self.refresh(audience).await?;
        // `EventView` is not shared between threads, so it does not live across an await.
        let invited = EventView::new(event).invited().and_then(|user_id| UserId::parse(user_id).ok());
        let invited = match invited.filter(|user_id| !audience.members.contains_key(user_id)) {
            Some(user_id) => self.compiled(std::slice::from_ref(&user_id)).await?.pop().flatten(),
            None => None,
        };
        Ok(evaluate(&EventView::new(event), audience, invited.as_deref()))
    }

    /// Finds out the rules of new members, and of those who changed theirs.
    async fn refresh(&self, audience: &mut Audience) -> Result<(), StorageError> {
        self.0.memory.tell(audience);
        if audience.unknown.is_empty() {
            return Ok(());
        }
        let compiled = self.compiled(&audience.unknown).await?;
        for (user_id, compiled) in std::mem::take(&mut audience.unknown).into_iter().zip(compiled) {
            match compiled {
                Some(compiled) => audience.custom.insert(user_id, compiled),
                None => audience.custom.remove(&user_id),
            };
        }
        Ok(())
    }

    /// The rules of users, in their order; `None` is the default. One query for all that are not remembered.
    async fn compiled(
        &self,
        user_ids: &[OwnedUserId],
    ) -> Result<Vec<Option<Arc<CompiledRules>>>, StorageError> {
        let known = self.known(user_ids).await?;
        let compiled = known.into_iter().map(|known| match known {
            Known::Changed(_, rules) => Some(rules.compiled.clone()),
            Known::Default | Known::Nothing => None,
        });
        Ok(compiled.collect())
    }

    async fn known(&self, user_ids: &[OwnedUserId]) -> Result<Vec<Known>, StorageError> {
        // The slots are there before we read: what the stream brings meanwhile is not lost.
        let slots: Vec<_> = user_ids.iter().map(|user_id| self.0.memory.slot(user_id)).collect();
        let unknown = user_ids.iter().zip(&slots).filter(|(_, slot)| matches!(*slot.lock(), Known::Nothing));
        let unknown: Vec<&str> = unknown.map(|(user_id, _)| user_id.as_str()).collect();
        if !unknown.is_empty() {
            let client = self.0.database.get().await?;
            let rows = push_rules::list_push_rules(&client, &unknown).await?;
            drop(client);
            for (user_id, slot) in user_ids.iter().zip(&slots) {
                match rows.iter().find(|row| row.user_id == user_id.as_str()) {
                    Some(row) => remember(slot, user_id, row.stream_id, &row.rules.as_str().into()),
                    None => remember_default(slot),
                }
            }
        }
        Ok(slots.into_iter().map(|slot| slot.lock().clone()).collect())
    }

    /// A user's rules.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ruleset(&self, user_id: &UserId) -> Result<Ruleset, StorageError> {
        let known = self.known(&[user_id.to_owned()]).await?.pop();
        let changes = match &known {
            Some(Known::Changed(_, rules)) => Some(&*rules.changes),
            _ => None,
        };
        load(user_id, changes)
    }

    /// A user's rules as JSON: an object with each kind of rules, be there any or none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn json(&self, user_id: &UserId) -> Result<String, StorageError> {
        Ok(ruleset::to_json(&self.ruleset(user_id).await?))
    }

    /// A user's rules as the content of
    /// [`m.push_rules`](https://spec.matrix.org/v1.19/client-server-api/#push-rules-events), for `/sync`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn content(&self, user_id: &UserId) -> Result<String, StorageError> {
        Ok(format!(r#"{{"global":{}}}"#, self.json(user_id).await?))
    }

    /// Whether a user's rules changed after `since` and up to `upto`. No query, for a user who was asked for lately.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn changed_since(
        &self,
        user_id: &UserId,
        since: &Position,
        upto: &Position,
    ) -> Result<bool, StorageError> {
        if since.covers_all(upto) {
            return Ok(false);
        }
        // By whom is not remembered: a change that some writer made below a position that is ahead of it is told twice
        // rather than never.
        let known = self.known(&[user_id.to_owned()]).await?.pop();
        Ok(matches!(known, Some(Known::Changed(id, _)) if id > since.minimum()))
    }

    /// Adds or replaces a rule, before or after another of the user's.
    ///
    /// # Errors
    /// If the rule or the place is not possible.
    pub async fn put_rule(
        &self,
        user_id: &UserId,
        rule: NewPushRule,
        after: Option<String>,
        before: Option<String>,
    ) -> Result<(), PushRuleError> {
        self.change(user_id, move |rules| ruleset::put(rules, rule, after.as_deref(), before.as_deref()))
            .await
    }

    /// Removes a rule of the user's own.
    ///
    /// # Errors
    /// If there is none, or it is the server's.
    pub async fn remove_rule(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
    ) -> Result<(), PushRuleError> {
        self.change(user_id, move |rules| {
            rules.remove(kind, &rule_id).map_err(|error| match error {
                RemovePushRuleError::ServerDefault => PushRuleError::ServerDefault,
                _ => PushRuleError::NotFound,
            })
        })
        .await
    }

    /// Enables or disables a rule.
    ///
    /// # Errors
    /// If there is none.
    pub async fn set_enabled(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        enabled: bool,
    ) -> Result<(), PushRuleError> {
        self.change(user_id, move |rules| {
            rules.set_enabled(kind, &rule_id, enabled).map_err(|_| PushRuleError::NotFound)
        })
        .await
    }

    /// Sets what a rule does.
    ///
    /// # Errors
    /// If there is none.
    pub async fn set_actions(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        actions: Vec<Action>,
    ) -> Result<(), PushRuleError> {
        self.change(user_id, move |rules| {
            rules.set_actions(kind, &rule_id, actions).map_err(|_| PushRuleError::NotFound)
        })
        .await
    }

    /// Gives a room the rules that a user has for another, which it replaces: those of the kind `room`, and those with a
    /// condition on the room's id. What the user has for the new room already stays.
    ///
    /// # Errors
    /// If the rules can't be read or written.
    pub async fn carry_over(
        &self,
        user_id: &UserId,
        old: OwnedRoomId,
        new: OwnedRoomId,
    ) -> Result<(), PushRuleError> {
        if replaced::about_room(&self.ruleset(user_id).await?, &old, &new).is_empty() {
            return Ok(());
        }
        self.change(user_id, move |rules| {
            for (rule, enabled) in replaced::about_room(rules, &old, &new) {
                let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
                ruleset::put(rules, rule, None, None)?;
                rules.set_enabled(kind, rule_id, enabled).map_err(|_| PushRuleError::NotFound)?;
            }
            Ok(())
        })
        .await
    }

    /// Changes a user's rules, one change after the other.
    async fn change(
        &self,
        user_id: &UserId,
        change: impl FnOnce(&mut Ruleset) -> Result<(), PushRuleError> + Send + 'static,
    ) -> Result<(), PushRuleError> {
        let user_id = user_id.to_owned();
        self.0
            .writer
            .transact(move |transaction| {
                Box::pin(async move {
                    let stored = push_rules::lock_push_rules(transaction, user_id.as_str()).await?;
                    let mut rules = load(&user_id, stored.as_deref())?;
                    if let Err(error) = change(&mut rules) {
                        return Ok((Err(error), Vec::new()));
                    }
                    let changes = serde_json::to_string(&ruleset::changes(&user_id, rules))
                        .map_err(|error| StorageError::Inconsistent(format!("push rules: {error}")))?;
                    if stored.as_deref().unwrap_or("{}") == changes {
                        return Ok((Ok(()), Vec::new()));
                    }
                    Ok((Ok(()), vec![PushRulesRow { user_id, changes: changes.into() }]))
                })
            })
            .await?
    }
}

impl Memory {
    fn slot(&self, user_id: &OwnedUserId) -> Arc<Mutex<Known>> {
        let slot = self.users.get_or_insert_with(user_id, || Ok::<_, Infallible>(Arc::default()));
        slot.unwrap_or_else(|never| match never {})
    }

    fn apply(&self, batch: &Batch<'_, PushRulesRow>) {
        let mut recent = self.recent.lock();
        for Stamped { id, row, .. } in batch.rows {
            // Users whom nobody asked for here are not worth a place.
            if let Some(slot) = self.users.get(&row.user_id) {
                remember(&slot, &row.user_id, *id, &row.changes);
            }
            recent.push_back(row.user_id.clone());
            if recent.len() > RECENT_CHANGES {
                recent.pop_front();
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Tells an audience whose rules have changed.
    fn tell(&self, audience: &mut Audience) {
        if audience.generation == self.generation.load(Ordering::Acquire) {
            return;
        }
        let recent = self.recent.lock();
        let generation = self.generation.load(Ordering::Acquire);
        let missed = usize::try_from(generation - audience.generation).unwrap_or(usize::MAX);
        if missed > recent.len() {
            audience.unknown = audience.members.keys().cloned().collect();
        } else {
            for user_id in recent.iter().skip(recent.len() - missed) {
                if audience.members.contains_key(user_id) && !audience.unknown.contains(user_id) {
                    audience.unknown.push(user_id.clone());
                }
            }
        }
        audience.generation = generation;
    }
}

/// Notes changed rules, unless newer ones are known.
fn remember(slot: &Mutex<Known>, user_id: &UserId, id: StreamId, changes: &Arc<str>) {
    let mut known = slot.lock();
    if matches!(*known, Known::Changed(newer, _) if newer >= id) {
        return;
    }
    // Whatever is wrong with stored rules must not keep others from being notified.
    let rules = load(user_id, Some(changes)).unwrap_or_else(|error| {
        warn!(%user_id, %error, "stored push rules can't be read");
        crate::defaults::ruleset(user_id)
    });
    let compiled = Arc::new(CompiledRules::new(&rules));
    *known = Known::Changed(id, Arc::new(ChangedRules { changes: changes.clone(), compiled }));
}

fn remember_default(slot: &Mutex<Known>) {
    let mut known = slot.lock();
    if matches!(*known, Known::Nothing) {
        *known = Known::Default;
    }
}

fn load(user_id: &UserId, changes: Option<&str>) -> Result<Ruleset, StorageError> {
    ruleset::load(user_id, changes)
        .map_err(|error| StorageError::Inconsistent(format!("push_rules.rules of {user_id}: {error}")))
}

#[cfg(test)]
mod tests;
