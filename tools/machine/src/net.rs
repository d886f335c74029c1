//! Ports, a small HTTP client and the readiness probes. Loopback only, so no TLS.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIME_OUT: Duration = Duration::from_secs(2);

/// Whether a server could listen on this loopback port now.
pub fn free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The wanted port if it is free and not `taken`, else one that the system picks.
pub fn choose(wanted: Option<u16>, taken: &[u16]) -> io::Result<u16> {
    if let Some(port) = wanted.filter(|p| !taken.contains(p) && free(*p)) {
        return Ok(port);
    }
    // Bounded: the system hands out a different port each time.
    for _ in 0..100 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if !taken.contains(&port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no free port"))
}

/// How to find out whether a process serves. Kept in the state file, so that `status` can ask too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET that answers 200.
    Http { url: String },
    /// A GET that answers anything below 500.
    HttpAnswer { url: String },
    /// Takes new PostgreSQL sessions.
    Postgres { addr: String },
    /// Opens AMQP 0-9-1 connections.
    Amqp { addr: String },
    /// Takes TCP connections.
    Tcp { addr: String },
}

impl Probe {
    /// As `kind address`; see [`Probe::parse`].
    pub fn to_text(&self) -> String {
        match self {
            Probe::Http { url } => format!("http {url}"),
            Probe::HttpAnswer { url } => format!("answer {url}"),
            Probe::Postgres { addr } => format!("postgres {addr}"),
            Probe::Amqp { addr } => format!("amqp {addr}"),
            Probe::Tcp { addr } => format!("tcp {addr}"),
        }
    }

    pub fn parse(text: &str) -> Option<Probe> {
        let (kind, address) = text.split_once(' ')?;
        let address = address.to_owned();
        match kind {
            "http" => Some(Probe::Http { url: address }),
            "answer" => Some(Probe::HttpAnswer { url: address }),
            "postgres" => Some(Probe::Postgres { addr: address }),
            "amqp" => Some(Probe::Amqp { addr: address }),
            "tcp" => Some(Probe::Tcp { addr: address }),
            _ => None,
        }
    }

    pub fn ready(&self) -> bool {
        match self {
            Probe::Http { url } => get(url).is_ok_and(|a| a.status == 200),
            Probe::HttpAnswer { url } => get(url).is_ok_and(|a| a.status < 500),
            Probe::Postgres { addr } => postgres_answers(addr).unwrap_or(false),
            Probe::Amqp { addr } => amqp_answers(addr).unwrap_or(false),
            Probe::Tcp { addr } => connect(addr).is_ok(),
        }
    }
}

fn connect(addr: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    let found: Vec<SocketAddr> = addr.to_socket_addrs()?.collect();
    for addr in found {
        match TcpStream::connect_timeout(&addr, TIME_OUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIME_OUT))?;
                stream.set_write_timeout(Some(TIME_OUT))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A start-up message as of protocol 3.0: the server asks for a password when it takes sessions, and answers
/// an error while it starts or stops (code 57P03) or when no slot is left.
/// <https://www.postgresql.org/docs/current/protocol-flow.html>
fn postgres_answers(addr: &str) -> io::Result<bool> {
    let mut stream = connect(addr)?;
    let body = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0";
    let length = body.len() as u32 + 4;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(body)?;
    let mut kind = [0; 1];
    stream.read_exact(&mut kind)?;
    Ok(kind[0] == b'R')
}

/// A broker answers the protocol header with `connection.start`, a method frame (type 1).
fn amqp_answers(addr: &str) -> io::Result<bool> {
    let mut stream = connect(addr)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut frame = [0; 1];
    stream.read_exact(&mut frame)?;
    Ok(frame[0] == 1)
}

/// An HTTP answer; the body is text.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }
}

pub fn get(url: &str) -> Result<Answer> {
    request("GET", url, &[], None, TIME_OUT)
}

/// One request on a connection of its own (`Connection: close`, HTTP/1.0 so that no chunks come back).
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&serde_json::Value>,
    time_out: Duration,
) -> Result<Answer> {
    let rest = url.strip_prefix("http://").with_context(|| format!("not an http address: {url}"))?;
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(h, p)| (h, p.to_owned()));
    let mut stream = connect(&with_port(host)).with_context(|| format!("cannot reach {url}"))?;
    stream.set_read_timeout(Some(time_out))?;
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.map(ToString::to_string).unwrap_or_default();
    if !body.is_empty() {
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    // A readiness page or an order is small; a stream without an end would be a wrong address.
    let mut bytes = Vec::new();
    stream.take(4 << 20).read_to_end(&mut bytes).with_context(|| format!("no whole answer from {url}"))?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("answer of {url}"))
}

/// The host of an http address with its port, which is 80 where none is given.
fn with_port(host: &str) -> String {
    // An IPv6 address has its colons in brackets.
    match host.rsplit(']').next() {
        Some(end) if end.contains(':') => host.to_owned(),
        _ => format!("{host}:80"),
    }
}

fn parse(text: &str) -> Result<Answer> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("not an HTTP answer") };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_chosen_again() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(!free(port));
        assert_ne!(choose(Some(port), &[]).unwrap(), port);
        drop(held);
        assert_eq!(choose(Some(port), &[]).unwrap(), port);
        assert_ne!(choose(Some(port), &[port]).unwrap(), port);
    }

    #[test]
    fn an_address_without_a_port_means_80() {
        assert_eq!(with_port("shop.example.com"), "shop.example.com:80");
        assert_eq!(with_port("10.96.0.20"), "10.96.0.20:80");
        assert_eq!(with_port("localhost:8080"), "localhost:8080");
        assert_eq!(with_port("[::1]"), "[::1]:80");
        assert_eq!(with_port("[::1]:8080"), "[::1]:8080");
    }

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "{\"a\":1}"));
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn a_closed_port_is_not_ready() {
        let port = choose(None, &[]).unwrap();
        let addr = format!("127.0.0.1:{port}");
        assert!(!Probe::Tcp { addr: addr.clone() }.ready());
        assert!(!Probe::Postgres { addr: addr.clone() }.ready());
        assert!(!Probe::Http { url: format!("http://{addr}/readyz") }.ready());
    }
}
