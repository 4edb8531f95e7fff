//! A Redis whose notices get lost, come twice, come late and overtake each other.

use std::{
    env,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::resp;

/// How late a notice comes at most.
const LATEST: Duration = Duration::from_secs(3);

/// How likely each mishap is, in hundredths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mangling {
    /// A notice is lost.
    pub lost: u64,
    /// A notice comes twice.
    pub twice: u64,
    /// A notice comes late, by up to some seconds, and so behind others.
    pub late: u64,
    /// A notice changes places with the next one.
    pub swapped: u64,
}

/// A socket that leads to a Redis and mangles the messages that come back.
#[derive(Debug)]
pub struct MangledNotices {
    mangled: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl MangledNotices {
    /// Listens on `from`. What happens to which notice follows from a seed, which is printed, and taken from the environment's
    /// `MYELIN_CHAOS_SEED` where that is set.
    ///
    /// # Panics
    ///
    /// If the socket can't be made.
    pub async fn start(from: &Path, redis: PathBuf, mangling: Mangling) -> Self {
        let listener = UnixListener::bind(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let seed = seed();
        #[expect(clippy::print_stderr, reason = "cargo shows it under the test, if it failed")]
        {
            eprintln!("MYELIN_CHAOS_SEED={seed}");
        }
        let mangled = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&mangled);
        let listening = tokio::spawn(async move {
            let mut random = Random(seed);
            while let Ok((from, _)) = listener.accept().await {
                let Ok(to) = UnixStream::connect(&redis).await else { continue };
                let mut mangler = Mangler::new(mangling, Random(random.next()), Arc::clone(&count));
                tokio::spawn(async move {
                    let ((mut said, answered), (answers, mut to)) = (from.into_split(), to.into_split());
                    tokio::select! {
                        _ = tokio::io::copy(&mut said, &mut to) => {}
                        _ = mangle(answers, answered, &mut mangler) => {}
                    }
                });
            }
        });
        Self { mangled, listening }
    }

    /// To how many notices something has happened.
    pub fn mangled(&self) -> usize {
        self.mangled.load(Ordering::Relaxed)
    }
}

impl Drop for MangledNotices {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn seed() -> u64 {
    let given = env::var("MYELIN_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());

    // The standard library's own randomness, which it keeps for its maps.
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// SplitMix64: good enough for mishaps.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Decides what happens to each notice of a connection.
struct Mangler {
    mangling: Mangling,
    random: Random,
    mangled: Arc<AtomicUsize>,
    /// Goes out behind the next notice.
    overtaken: Option<Vec<u8>>,
    /// Goes out at its time.
    late: Vec<(Instant, Vec<u8>)>,
}

impl Mangler {
    fn new(mangling: Mangling, random: Random, mangled: Arc<AtomicUsize>) -> Self {
        Self { mangling, random, mangled, overtaken: None, late: Vec::new() }
    }

    /// Takes a notice and appends to `out` what goes out now.
    fn take(&mut self, notice: &[u8], out: &mut Vec<u8>) {
        let Mangling { lost, twice, late, swapped } = self.mangling;
        let dice = self.random.next() % 100;
        if dice < lost + twice + late + swapped {
            self.mangled.fetch_add(1, Ordering::Relaxed);
        }
        if dice < lost {
            return;
        }
        if dice < lost + twice {
            out.extend_from_slice(notice);
        } else if dice < lost + twice + late {
            let bound = u64::try_from(LATEST.as_millis()).unwrap_or(u64::MAX);
            let due = Instant::now() + Duration::from_millis(self.random.next() % bound);
            self.late.push((due, notice.to_vec()));
            return;
        } else if dice < lost + twice + late + swapped && self.overtaken.is_none() {
            self.overtaken = Some(notice.to_vec());
            return;
        }
        out.extend_from_slice(notice);
        out.extend(self.overtaken.take().unwrap_or_default());
    }

    /// When the next late notice is due.
    fn due(&self) -> Option<Instant> {
        self.late.iter().map(|(due, _)| *due).min()
    }

    /// The late notices that are due.
    fn take_due(&mut self) -> Vec<u8> {
        let now = Instant::now();
        self.late.extract_if(.., |(due, _)| *due <= now).flat_map(|(_, notice)| notice).collect()
    }
}

/// Carries what Redis says to a client.
async fn mangle(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mangler: &mut Mangler,
) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let due = mangler.due();
        let wait = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let mut out = Vec::new();
        tokio::select! {
            length = from.read(&mut buffer) => match length? {
                0 => return Ok(()),
                length => pending.extend_from_slice(&buffer[..length]),
            },
            () = wait => out = mangler.take_due(),
        }
        let mut done = 0;
        while let Some((length, is_notice)) = resp::first_value(&pending[done..]) {
            let value = &pending[done..done + length];
            if is_notice {
                mangler.take(value, &mut out);
            } else {
                out.extend_from_slice(value);
            }
            done += length;
        }
        pending.drain(..done);
        to.write_all(&out).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mangler(mangling: Mangling) -> Mangler {
        Mangler::new(mangling, Random(1), Arc::default())
    }

    fn sent(mangler: &mut Mangler) -> String {
        let mut out = Vec::new();
        ["a", "b", "c", "d"].iter().for_each(|notice| mangler.take(notice.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_mishap_happens() {
        assert_eq!(sent(&mut mangler(Mangling::default())), "abcd");
        assert_eq!(sent(&mut mangler(Mangling { lost: 100, ..Mangling::default() })), "");
        assert_eq!(sent(&mut mangler(Mangling { twice: 100, ..Mangling::default() })), "aabbccdd");
        assert_eq!(sent(&mut mangler(Mangling { swapped: 100, ..Mangling::default() })), "badc");
    }

    #[test]
    fn what_is_late_comes_in_the_end() {
        let mut mangler = mangler(Mangling { late: 100, ..Mangling::default() });
        assert_eq!(sent(&mut mangler), "");
        assert!(mangler.due().is_some_and(|due| due < Instant::now() + LATEST));
        for (due, _) in &mut mangler.late {
            *due = Instant::now();
        }
        assert_eq!(mangler.take_due(), b"abcd");
        assert_eq!(mangler.due(), None);
    }
}
