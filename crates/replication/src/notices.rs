//! Notices between processes, over Redis.
//!
//! What a process commits is published to a channel of the stream; every other process hands it to its [`Feed`]. Redis may
//! lose, repeat, delay or reorder anything and may be gone for a while: a feed that sees a gap reads the database, after
//! every reconnect all feeds do, and now and then each looks whether it missed the last notice.

use std::{
    collections::HashMap,
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, SubscriberClient},
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::{
        Builder, Message, Value,
        config::{Config, ReconnectPolicy, Server, ServerConfig},
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    task::AbortHandle,
    time::MissedTickBehavior,
};
use tracing::{debug, info, warn};

use crate::{Feed, Stream, wire};

/// Messages that wait to be published. What is more is dropped: it is read from the database.
const QUEUE: usize = 4096;
/// How long Redis may take for one command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(2);
/// How long the attempts to reconnect lie apart, in milliseconds: at first, and at most.
const RECONNECT_MS: (u32, u32) = (50, 2_000);
/// Messages that the connection keeps for us.
const BROADCAST: usize = 16 << 10;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// A host and port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
    /// The master that some Sentinels know by a name.
    Sentinel {
        /// Host and port of each.
        sentinels: Vec<(String, u16)>,
        /// The master's name.
        service: String,
        /// The Sentinels' own password.
        password: Option<String>,
    },
}

/// How to speak to Redis.
#[derive(Clone, Debug)]
pub struct NoticesOptions {
    /// Where it is.
    pub address: RedisAddress,
    /// The user, for a Redis with access lists.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the logical database. Channels do not care, keys do.
    pub database: Option<u8>,
    /// TLS; `None` speaks in the clear.
    pub tls: Option<rustls::ClientConfig>,
    /// The homeserver, after which all channels are named.
    pub server_name: String,
    /// How often each stream is compared with the database, in case the last notice was lost.
    pub look_every: Duration,
}

/// Redis can't be spoken to in that way.
#[derive(Debug, thiserror::Error)]
#[error("Redis: {0}")]
pub struct NoticesError(#[from] fred::error::Error);

/// A process's connection to the others. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub struct Notices(Arc<Inner>);

struct Inner {
    options: NoticesOptions,
    subscriber: SubscriberClient,
    outgoing: mpsc::Sender<(Arc<str>, Bytes)>,
    inlets: Inlets,
    tasks: Mutex<Vec<AbortHandle>>,
    /// The thread that takes messages in ends when this is dropped.
    _open: oneshot::Sender<()>,
}

/// Where the messages of each channel go.
type Inlets = Arc<Mutex<HashMap<String, Arc<Inlet>>>>;

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").field("address", &self.0.options.address).finish_non_exhaustive()
    }
}

/// A channel to publish to.
struct Outlet {
    connection: Weak<Inner>,
    channel: Arc<str>,
}

impl Outlet {
    fn publish(&self, message: impl FnOnce() -> Bytes) {
        let Some(connection) = self.connection.upgrade() else { return };
        // A message that finds no place is one that was lost.
        if let Ok(place) = connection.outgoing.try_reserve() {
            place.send((self.channel.clone(), message()));
        }
    }
}

/// Tells the other processes something.
pub struct Teller<T> {
    outlet: Outlet,
    me: u64,
    what: PhantomData<fn(T)>,
}

impl<T> std::fmt::Debug for Teller<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").field("channel", &self.outlet.channel).finish_non_exhaustive()
    }
}

impl<T: Serialize> Teller<T> {
    /// Tells them. Does not block.
    pub fn tell(&self, what: T) {
        let told = Told { by: self.me, what };
        self.outlet.publish(|| serde_json::to_vec(&told).map_or_else(|_| Bytes::new(), Bytes::from));
    }
}

#[derive(Serialize, Deserialize)]
struct Told<T> {
    /// The connection that told it, and need not hear of it.
    by: u64,
    what: T,
}

/// Takes a message in, or says that something before it is missing.
type TakeIn = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Where the messages of a channel go.
struct Inlet {
    take_in: TakeIn,
    /// Something was or may have been missed: the database is to be read.
    missed: Notify,
}

impl Inlet {
    fn look(&self) {
        self.missed.notify_one();
    }
}

impl Notices {
    /// Begins to connect, and goes on trying as long as this lives. Nobody has to wait for it: without Redis, processes see
    /// each other's writes later, and nothing else changes.
    ///
    /// # Errors
    /// If the options make no sense.
    pub fn start(options: NoticesOptions) -> Result<Self, NoticesError> {
        let mut builder = Builder::from_config(config(&options));
        builder.set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2));
        builder.with_connection_config(|connection| {
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = QUEUE;
            // Also a password that was refused may be right after the next restart.
            connection.reconnect_on_auth_error = true;
        });
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = COMMAND_PATIENCE;
            performance.broadcast_channel_capacity = BROADCAST;
        });
        let subscriber = builder.build_subscriber_client()?;
        let publisher = builder.build()?;
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let inlets = Inlets::default();
        let (open, closed) = oneshot::channel();
        listen_on_a_thread(&subscriber, &inlets, closed)?;
        let tasks = vec![
            tokio::spawn(publish(publisher.clone(), queue)).abort_handle(),
            publisher.connect().abort_handle(),
        ];
        let tasks = Mutex::new(tasks);
        Ok(Self(Arc::new(Inner { options, subscriber, outgoing, inlets, tasks, _open: open })))
    }

    /// Has a feed hear of what other processes commit, and they of what is committed here.
    pub fn join<S: Stream>(&self, feed: &Feed<S>) {
        let channel: Arc<str> = format!("myelin:{}:stream:{}", self.0.options.server_name, S::NAME).into();
        let taking_in = feed.clone();
        let inlet = self.listen(&channel, move |message| deliver(&taking_in, message));
        let reading = tokio::spawn(read(feed.clone(), inlet, self.0.options.look_every));
        self.0.tasks.lock().push(reading.abort_handle());
        let outlet = Outlet { connection: Arc::downgrade(&self.0), channel };
        feed.publish_to(move |notice| outlet.publish(|| wire::encode::<S>(notice)));
    }

    /// Has `hear` called with what other processes tell by a channel of this name, and gives the means to tell them. What is
    /// told while Redis is away is lost: this is for what is out of date soon. `hear` must not block.
    pub fn open<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        hear: impl Fn(T) + Send + Sync + 'static,
    ) -> Teller<T> {
        let channel: Arc<str> = format!("myelin:{}:{name}", self.0.options.server_name).into();
        let me = rand::random();
        self.listen(&channel, move |message| {
            match serde_json::from_slice::<Told<T>>(message) {
                Ok(told) if told.by == me => {}
                Ok(told) => hear(told.what),
                // A newer version may say more than we understand.
                Err(error) => debug!(%error, "a message that is not understood"),
            }
            true
        });
        Teller { outlet: Outlet { connection: Arc::downgrade(&self.0), channel }, me, what: PhantomData }
    }

    fn listen(
        &self,
        channel: &Arc<str>,
        take_in: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Arc<Inlet> {
        let inlet = Arc::new(Inlet { take_in: Box::new(take_in), missed: Notify::new() });
        self.0.inlets.lock().insert(channel.to_string(), inlet.clone());
        let subscriber = self.0.subscriber.clone();
        let name = channel.to_string();
        let subscribing = tokio::spawn(async move {
            // Once it is tracked, each new connection subscribes by itself.
            while let Err(error) = subscriber.subscribe(name.clone()).await {
                debug!(%error, channel = name, "subscribing");
                tokio::time::sleep(Duration::from_millis(RECONNECT_MS.0.into())).await;
            }
        });
        self.0.tasks.lock().push(subscribing.abort_handle());
        inlet
    }

    /// How many messages wait to be published.
    pub fn waiting(&self) -> usize {
        self.0.outgoing.max_capacity() - self.0.outgoing.capacity()
    }

    /// Whether there is a connection to Redis.
    pub fn is_connected(&self) -> bool {
        self.0.subscriber.is_connected()
    }
}

fn config(options: &NoticesOptions) -> Config {
    let server = match options.address.clone() {
        RedisAddress::Tcp(host, port) => ServerConfig::Centralized { server: Server::new(host, port) },
        RedisAddress::Unix(path) => ServerConfig::Unix { path },
        RedisAddress::Sentinel { sentinels, service, password } => ServerConfig::Sentinel {
            hosts: sentinels.into_iter().map(|(host, port)| Server::new(host, port)).collect(),
            service_name: service,
            username: None,
            password,
        },
    };
    Config {
        fail_fast: false,
        username: options.username.clone(),
        password: options.password.clone(),
        server,
        database: options.database,
        tls: options.tls.clone().map(|tls| fred::types::config::TlsConnector::from(tls).into()),
        ..Config::default()
    }
}

/// Publishes what is committed here, one message after the other.
async fn publish(publisher: Client, mut queue: mpsc::Receiver<(Arc<str>, Bytes)>) {
    while let Some((channel, message)) = queue.recv().await {
        if let Err(error) = publisher.publish::<(), _, _>(channel.to_string(), message).await {
            debug!(%error, %channel, "a notice was not published");
        }
    }
}

/// Has messages read and taken in on a thread of their own, until `closed` ends. They come one by one, and on a runtime of several
/// threads each would wake two. Tasks that taking them in begins are the caller's runtime's.
fn listen_on_a_thread(
    subscriber: &SubscriberClient,
    inlets: &Inlets,
    closed: oneshot::Receiver<()>,
) -> Result<(), NoticesError> {
    let others = Handle::current();
    let failed = |error: std::io::Error| NoticesError(error.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    {
        let _tasks_are_its_own = runtime.enter();
        tokio::spawn(take_in(subscriber.clone(), inlets.clone(), others));
        tokio::spawn(look_after_reconnects(subscriber.clone(), inlets.clone()));
        subscriber.manage_subscriptions();
        subscriber.connect();
    }
    let listen = move || {
        // Its end is that of the sender: nothing is ever sent.
        let _ = runtime.block_on(closed);
    };
    std::thread::Builder::new().name("notices".to_owned()).spawn(listen).map_err(failed)?;
    Ok(())
}

/// Gives each message to its inlet.
async fn take_in(subscriber: SubscriberClient, inlets: Inlets, runtime: Handle) {
    let mut messages = subscriber.message_rx();
    loop {
        let message = messages.recv().await;
        let _tasks = runtime.enter();
        match message {
            Ok(Message { channel, value: Value::Bytes(bytes), .. }) => offer(&inlets, &channel, &bytes),
            Ok(Message { channel, value: Value::String(text), .. }) => {
                offer(&inlets, &channel, text.as_bytes());
            }
            Ok(_) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(count)) => {
                warn!(count, "notices came faster than they could be taken in");
                inlets.lock().values().for_each(|inlet| inlet.look());
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn offer(inlets: &Inlets, channel: &str, message: &[u8]) {
    let inlet = inlets.lock().get(channel).cloned();
    if let Some(inlet) = inlet
        && !(inlet.take_in)(message)
    {
        inlet.look();
    }
}

/// While a connection was gone, messages were lost.
async fn look_after_reconnects(subscriber: SubscriberClient, inlets: Inlets) {
    let mut reconnects = subscriber.reconnect_rx();
    while reconnects.recv().await.is_ok() {
        info!("connected to Redis");
        inlets.lock().values().for_each(|inlet| inlet.look());
    }
}

/// Has a feed read from the database what it was not told.
async fn read<S: Stream>(feed: Feed<S>, inlet: Arc<Inlet>, look_every: Duration) {
    let mut ticks = tokio::time::interval(look_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = inlet.missed.notified() => {}
            _ = ticks.tick() => {}
        }
        if let Err(error) = feed.see_committed().await {
            debug!(stream = S::NAME, %error, "looking for what was missed");
        }
    }
}

/// Whether the feed stands where the message says, or farther.
fn deliver<S: Stream>(feed: &Feed<S>, message: &[u8]) -> bool {
    let taken = match wire::decode(message) {
        Ok(Some(incoming)) => feed.take_in(&incoming),
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    // A newer version may say more than we understand; the database says it in our words.
    taken
        .inspect_err(|error| debug!(stream = S::NAME, %error, "a notice that is not understood"))
        .unwrap_or_default()
}
