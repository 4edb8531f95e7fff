//! A client that sees what is on the wire, and no more.

use std::collections::BTreeMap;

use serde_json::Value as JsonValue;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

/// An answer as it arrived.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the body ended as its head had promised.
    pub complete: bool,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub fn json(&self) -> JsonValue {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn errcode(&self) -> String {
        self.json()["errcode"].as_str().expect("an error has an errcode").to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A connection that can be used again.
pub struct Connection<T>(BufReader<T>);

impl Connection<tokio::net::TcpStream> {
    pub async fn open(address: std::net::SocketAddr) -> Self {
        Self::new(tokio::net::TcpStream::connect(address).await.expect("somebody listens"))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    pub fn new(stream: T) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a request: method and target, further header lines, body.
    pub async fn send(&mut self, request: &str, headers: &[&str], body: &str) {
        let mut text = format!("{request} HTTP/1.1\r\nhost: localhost\r\n");
        headers.iter().for_each(|header| text.push_str(&format!("{header}\r\n")));
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.send_raw(&text).await;
    }

    pub async fn send_raw(&mut self, text: &str) {
        // The server may have answered and closed before it has read everything.
        let _ = self.0.write_all(text.as_bytes()).await;
    }

    pub async fn ask(&mut self, request: &str, headers: &[&str], body: &str) -> Answer {
        self.send(request, headers, body).await;
        self.read(request.starts_with("HEAD")).await
    }

    /// Whether the other side has closed, or does before it says anything.
    pub async fn closes(mut self) -> bool {
        self.0.read_u8().await.is_err()
    }

    pub async fn read(&mut self, head_only: bool) -> Answer {
        let head = self.read_head().await;
        self.read_body(head, head_only).await
    }

    pub async fn read_head(&mut self) -> Answer {
        let status_line = self.line().await.expect("an answer");
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await.expect("a head that ends");
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Answer { status, headers, body: Vec::new(), complete: true }
    }

    pub async fn read_body(&mut self, mut answer: Answer, head_only: bool) -> Answer {
        if !head_only && answer.status != 204 {
            let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
            answer.complete = match length {
                Some(length) => self.take(length, &mut answer.body).await,
                None => self.chunks(&mut answer.body).await,
            };
        }
        answer
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    async fn take(&mut self, length: usize, body: &mut Vec<u8>) -> bool {
        let start = body.len();
        body.resize(start + length, 0);
        self.0.read_exact(&mut body[start..]).await.is_ok()
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        while let Some(line) = self.line().await {
            let Ok(length) = usize::from_str_radix(&line, 16) else { return false };
            if !self.take(length, body).await || self.line().await.is_none() {
                return false;
            }
            if length == 0 {
                return true;
            }
        }
        false
    }
}
