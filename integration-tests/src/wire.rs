//! Connections that can be broken: what stands between a process and what it speaks to, where a test says so.

mod mangle;
mod resp;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use myelin_testing::free_port;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

pub use self::mangle::{MangledNotices, Mangling};

/// How a wire is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Everything is late by so much.
    Slow(Duration),
    /// Nothing comes through, and nobody is told: a cable was pulled.
    Silent,
}

/// A wire between those who connect to it and a target.
#[derive(Debug)]
pub struct Wire {
    state: watch::Sender<State>,
    target: watch::Sender<Option<u16>>,
    port: Option<u16>,
    carried: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Wire {
    /// A wire from a TCP port of its own to another, which is named by [`Wire::lead_to`]; until then connections wait.
    ///
    /// # Panics
    ///
    /// If no port can be listened on.
    pub async fn tcp() -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port was free a moment ago");
        let (state, target) = (watch::Sender::new(State::Open), watch::Sender::new(None::<u16>));
        let (states, targets) = (state.clone(), target.clone());
        let carried = Arc::new(AtomicUsize::new(0));
        let connections = carried.clone();
        let listening = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (states, mut targets) = (states.subscribe(), targets.subscribe());
                tokio::spawn(async move {
                    let target = *targets.wait_for(Option::is_some).await.ok()?;
                    let to = TcpStream::connect(("127.0.0.1", target?)).await.ok()?;
                    join(from.into_split(), to.into_split(), states).await;
                    Some(())
                });
            }
        });
        Self { state, target, port: Some(port), carried, listening }
    }

    /// A wire from a unix socket to another.
    ///
    /// # Panics
    ///
    /// If the socket can't be made.
    pub async fn unix(from: &Path, to: PathBuf) -> Self {
        let listener = UnixListener::bind(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let (state, target) = (watch::Sender::new(State::Open), watch::Sender::new(None));
        let (states, to) = (state.clone(), Arc::new(to));
        let carried = Arc::new(AtomicUsize::new(0));
        let connections = carried.clone();
        let listening = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (states, to) = (states.subscribe(), Arc::clone(&to));
                tokio::spawn(async move {
                    let to = UnixStream::connect(&*to).await.ok()?;
                    join(from.into_split(), to.into_split(), states).await;
                    Some(())
                });
            }
        });
        Self { state, target, port: None, carried, listening }
    }

    /// The port to connect to.
    ///
    /// # Panics
    ///
    /// If it is a wire between unix sockets.
    pub fn port(&self) -> u16 {
        self.port.expect("the wire is of TCP")
    }

    /// How many connections were made through it so far.
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    /// Says which port it leads to.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(Some(port));
    }

    /// From now on nothing comes through, and no connection is told so.
    pub fn go_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    /// From now on all is late by so much.
    pub fn go_slow(&self, delay: Duration) {
        self.state.send_replace(State::Slow(delay));
    }

    /// All comes through again; what was under way arrives late.
    pub fn heal(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Carries bytes both ways until one side closes.
async fn join(
    (from_reader, from_writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (to_reader, to_writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    states: watch::Receiver<State>,
) {
    tokio::select! {
        _ = carry(from_reader, to_writer, states.clone()) => {}
        _ = carry(to_reader, from_writer, states) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        // An end is not told either while the wire is silent.
        let Ok(state) = states.wait_for(|state| *state != State::Silent).await.map(|state| *state) else {
            return Ok(());
        };
        if let State::Slow(delay) = state {
            tokio::time::sleep(delay).await;
        }
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const A_MOMENT: Duration = Duration::from_millis(100);

    /// Echoes on a port.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut reader, mut writer) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
            }
        });
        port
    }

    #[tokio::test]
    async fn a_silent_wire_keeps_what_it_was_given_until_it_is_healed() {
        let wire = Wire::tcp().await;
        wire.lead_to(echo().await);
        let mut stream = TcpStream::connect(("127.0.0.1", wire.port())).await.unwrap();
        let mut answer = [0; 2];
        stream.write_all(b"ab").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ab");

        wire.go_silent();
        stream.write_all(b"cd").await.unwrap();
        assert!(timeout(A_MOMENT, stream.read_exact(&mut answer)).await.is_err());
        wire.heal();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"cd");
    }
}
