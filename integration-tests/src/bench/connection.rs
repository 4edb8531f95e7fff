//! A keep-alive HTTP connection that costs next to nothing, so that the figures are the server's and not its client's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The largest answer that is read: an initial sync has some megabytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// How long a connection may be silent: not long after that, homeservers and proxies close it.
const FRESH: Duration = Duration::from_secs(30);

/// A logged-in device.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The full user ID.
    pub user_id: String,
    /// Its access token.
    pub token: String,
    /// Its device's ID.
    pub device_id: String,
}

impl Account {
    /// Reads the answer to a registration or a login.
    pub fn from_login(answer: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| {
            let text = answer[key].as_str().map(str::to_owned);
            text.with_context(|| format!("no {key} in the answer {answer}"))
        };

        Ok(Self { user_id: text("user_id")?, token: text("access_token")?, device_id: text("device_id")? })
    }
}

/// A connection, over which one account speaks at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    last_used: Instant,
    authority: String,
    account: Account,
    request: Vec<u8>,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects an account to a homeserver under its base URL.
    pub async fn open(base_url: &str, account: &Account) -> anyhow::Result<Self> {
        let authority = base_url.trim_start_matches("http://").to_owned();

        Ok(Self {
            stream: connect(&authority).await?,
            last_used: Instant::now(),
            authority,
            account: account.clone(),
            request: Vec::new(),
            buffer: Vec::with_capacity(1 << 16),
            body: Vec::new(),
        })
    }

    /// Who speaks.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// From now on somebody else does.
    pub fn act_as(&mut self, account: &Account) {
        self.account.clone_from(account);
    }

    /// Sends a request that must be answered with 200.
    pub async fn ok(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let status = self.request(method, path, body).await?;
        ensure!(
            status == 200,
            "{method} {path} was answered with {status}: {}",
            String::from_utf8_lossy(&self.body[..self.body.len().min(300)])
        );

        Ok(())
    }

    /// Sends a request and reads its whole answer: the status; the body is then in [`Connection::body`].
    pub async fn request(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<u16> {
        use std::io::Write as _;

        if self.last_used.elapsed() > FRESH {
            self.stream = connect(&self.authority).await?;
        }
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            self.account.token,
            body.len(),
        )?;
        self.stream.write_all(&self.request).await?;
        let status = self.read_answer().await?;
        self.last_used = Instant::now();

        Ok(status)
    }

    /// The body of the last answer.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the body of the last answer has these bytes somewhere.
    pub fn has(&self, text: &str) -> bool {
        find(&self.body, text.as_bytes()).is_some()
    }

    /// The numbers in the body of the last answer that follow some text and end with a point.
    pub fn numbers_after(&self, text: &str) -> Vec<usize> {
        let mut numbers = Vec::new();
        let mut rest = self.body.as_slice();
        while let Some(at) = find(rest, text.as_bytes()) {
            rest = &rest[at + text.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if rest.get(digits) == Some(&b'.') {
                numbers.extend(
                    std::str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse::<usize>().ok()),
                );
            }
        }

        numbers
    }

    /// The body of the last answer, parsed.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).context("the homeserver's answer is not JSON")
    }

    async fn read_answer(&mut self) -> anyhow::Result<u16> {
        let end_of_head = loop {
            match find(&self.buffer, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more().await?,
            }
        };
        let head = std::str::from_utf8(&self.buffer[..end_of_head]).context("a head in ASCII")?;
        let status = head.get(9..12).and_then(|text| text.parse().ok()).context("a status")?;
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
        };
        let length = header("content-length").map(str::parse::<usize>).transpose().context("a length")?;
        let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        self.buffer.drain(..end_of_head);
        self.body.clear();
        match length {
            Some(length) => self.take(length).await?,
            None if chunked => self.read_chunks().await?,
            None => bail!("an answer without a length"),
        }

        Ok(status)
    }

    async fn read_chunks(&mut self) -> anyhow::Result<()> {
        loop {
            let end_of_line = loop {
                match find(&self.buffer, b"\r\n") {
                    Some(at) => break at,
                    None => self.read_more().await?,
                }
            };
            let line = std::str::from_utf8(&self.buffer[..end_of_line]).context("the size of a chunk")?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
            self.buffer.drain(..end_of_line + 2);
            self.take(size).await?;
            let body = self.body.len();
            self.take(2).await?;
            self.body.truncate(body);
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// Moves bytes from the connection to the body.
    async fn take(&mut self, length: usize) -> anyhow::Result<()> {
        ensure!(
            self.body.len() + length <= MAX_ANSWER_BYTES,
            "an answer of more than {MAX_ANSWER_BYTES} bytes"
        );
        while self.buffer.len() < length {
            self.read_more().await?;
        }
        self.body.extend(self.buffer.drain(..length));

        Ok(())
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the homeserver closed the connection");

        Ok(())
    }
}

async fn connect(authority: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await.context("connecting to the homeserver")?;
    stream.set_nodelay(true)?;

    Ok(stream)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
