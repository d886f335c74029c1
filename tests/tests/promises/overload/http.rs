//! An HTTP client of few lines: it shares two cores with the shop that it is to overload.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use uuid::Uuid;

/// A request whose bytes are ready but for its Idempotency-Key.
pub struct Request {
    /// host:port
    pub edge: String,
    head: String,
    rest: String,
}

impl Request {
    pub fn order(edge: &str, token: &str, body: &str) -> Self {
        let edge = edge.trim_start_matches("http://").to_owned();
        let head = format!(
            "POST /api/v1/orders HTTP/1.1\r\nhost: {edge}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nidempotency-key: ",
            body.len()
        );
        Self { edge, head, rest: format!("\r\n\r\n{body}") }
    }

    pub fn with_key(&self, key: Uuid) -> String {
        format!("{}{key}{}", self.head, self.rest)
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u32>,
    /// The connection ends with it.
    pub last: bool,
    pub body: String,
}

pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// To an address as `http://host:port` or `host:port`.
    pub async fn open(edge: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(edge.trim_start_matches("http://")).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(4096) })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and reads its answer, which has a Content-Length.
    pub async fn exchange(&mut self, request: &str) -> io::Result<Answer> {
        self.send(request.as_bytes()).await?;
        self.read.clear();
        let (head, start) = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break (String::from_utf8_lossy(&self.read[..end]).into_owned(), end + 4);
            }
            self.more().await?;
        };
        let field = |name: &str| {
            let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
        };
        let length: usize =
            field("content-length").and_then(|length| length.parse().ok()).unwrap_or_else(|| {
                panic!("no length: {head}");
            });
        while self.read.len() < start + length {
            self.more().await?;
        }
        Ok(Answer {
            status: status(&head),
            retry_after: field("retry-after").and_then(|seconds| seconds.parse().ok()),
            last: field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
            body: String::from_utf8_lossy(&self.read[start..start + length]).into_owned(),
        })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub fn split(self) -> (Reader, Writer) {
        let (reader, writer) = self.stream.into_split();
        (Reader(reader), Writer(writer))
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

pub struct Reader(OwnedReadHalf);
pub struct Writer(OwnedWriteHalf);

impl Reader {
    /// The status of what came before the connection was closed; 0 when nothing came.
    pub async fn until_closed(&mut self) -> u16 {
        let mut read = Vec::new();
        // The end, or a reset by a server that reads no more.
        while matches!(self.0.read_buf(&mut read).await, Ok(1..)) {}
        status(&String::from_utf8_lossy(&read))
    }
}

impl Writer {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}
