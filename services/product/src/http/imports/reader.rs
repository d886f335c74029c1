//! The body of an import: read to its end, in batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::http::StatusCode;
use futures_util::StreamExt;
use service::Problem;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::product::import::progress::Counts;
use crate::product::import::{File, Line, LineError, Names, Profile, Read, Unit};

/// A batch is written once it has as many lines, or is this long in bytes.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;

pub const LIMITS: Limits =
    Limits { bytes: 1024 * 1024 * 1024, stalled: Duration::from_secs(30), whole: Duration::from_secs(3600) };

pub struct Limits {
    /// Longest file: the edge's limit for this address.
    pub bytes: u64,
    /// A body that has stopped coming fails after this.
    pub stalled: Duration,
    /// A body that comes too slowly fails after this.
    pub whole: Duration,
}

/// Lines in a row, with what was wrong among them.
#[derive(Default)]
pub struct Batch {
    pub lines: Vec<Line>,
    pub errors: Vec<LineError>,
    bytes: usize,
    /// The line that was read last.
    pub last: u64,
    pub unit: Unit,
    pub names: Option<Arc<Names>>,
    /// The lines as they are in the file, if they are wanted.
    pub raw: HashMap<u64, Bytes>,
    pub header: Option<(Bytes, char)>,
    /// Whose export it is, and what of it has no place here so far.
    pub platform: Option<(Profile, BTreeMap<String, u64>)>,
}

pub struct Reader {
    pub body: BodyDataStream,
    pub limits: Limits,
    pub stop: CancellationToken,
    pub batches: mpsc::Sender<Batch>,
    /// Whether lines are wanted as they are in the file.
    pub keep: bool,
    /// How much of the body has come.
    pub counts: watch::Sender<Counts>,
}

impl Reader {
    /// Reads to the body's end. If that does not come, the lines since the last full batch are dropped, and
    /// the last line, which may be incomplete.
    pub async fn run(mut self, mut file: File) -> Result<(), Problem> {
        let mut batch = Batch::default();
        let (mut length, deadline) = (0, Instant::now() + self.limits.whole);
        while let Some(chunk) = self.chunk(deadline).await? {
            length += chunk.len() as u64;
            if length > self.limits.bytes {
                return Err(too_large());
            }
            self.counts.send_modify(|counts| counts.bytes = length);
            file.feed(chunk);
            self.read(&mut file, &mut batch).await?;
        }
        file.end();
        self.read(&mut file, &mut batch).await?;
        self.send(&file, &mut batch).await
    }

    async fn read(&mut self, file: &mut File, batch: &mut Batch) -> Result<(), Problem> {
        while let Some(read) = file.next()? {
            batch.add(read, self.keep);
            if batch.is_full() {
                self.send(file, batch).await?;
            }
        }
        Ok(())
    }

    async fn chunk(&mut self, deadline: Instant) -> Result<Option<bytes::Bytes>, Problem> {
        let late = |_| {
            let detail = "The file stopped coming; what was imported stays. Send it again.";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
        };
        let wait = self.limits.stalled.min(deadline.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = self.stop.cancelled() => {
                let detail = "The service is stopping; what was imported stays. Send the file again.";
                Err(Problem::unavailable(detail))
            }
            chunk = timeout(wait, self.body.next()) => chunk.map_err(late)?.transpose().map_err(|_| {
                Problem::bad_request("malformed_body", "The body ended early; what was imported stays.")
            }),
        }
    }

    async fn send(&mut self, file: &File, batch: &mut Batch) -> Result<(), Problem> {
        (batch.unit, batch.names, batch.platform) = (file.unit(), file.names(), file.platform());
        batch.header = file.header();
        batch.last = file.done(batch.last);
        // The writer ends early with a problem of its own, which is returned instead.
        self.batches.send(std::mem::take(batch)).await.map_err(|_| Problem::internal())
    }
}

impl Batch {
    fn add(&mut self, read: Read, keep: bool) {
        self.last = self.last.max(read.number);
        self.bytes += read.bytes;
        if keep && read.line.is_some() {
            self.raw.insert(read.number, read.raw);
        }
        match read.line {
            Some(Ok(line)) => self.lines.push(line),
            Some(Err(error)) => self.errors.push(error),
            None => {}
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() + self.errors.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES
    }
}

pub fn too_large() -> Problem {
    let detail = "The file is longer than 1 GiB; send it in parts.";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;
    use crate::product::import::{Encoding, Kind, Options};

    /// The outcome for a body of these chunks, with these pauses; `more` follow that never come.
    async fn read(limits: Limits, chunks: &[&'static str], apart: Duration, more: bool) -> Problem {
        let body = stream::iter(chunks.to_vec()).then(move |chunk| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))
        });
        let rest = stream::once(async move {
            if more {
                std::future::pending::<()>().await;
            }
            Ok(Bytes::new())
        });
        let (batches, mut queue) = mpsc::channel(1);
        let body = Body::from_stream(body.chain(rest)).into_data_stream();
        let (stop, counts) = (CancellationToken::new(), watch::Sender::default());
        let reader = Reader { body, limits, stop, batches, keep: false, counts };
        let problem =
            reader.run(File::new(Kind::Json, Encoding::Utf8)).await.expect_err("the body is refused");
        assert!(queue.recv().await.is_none(), "nothing of it is kept");
        problem
    }

    #[tokio::test]
    async fn a_body_that_stops_crawls_or_does_not_end_is_refused() {
        let (soon, late) = (Duration::from_millis(30), Duration::from_secs(600));
        let limits = |bytes, stalled, whole| Limits { bytes, stalled, whole };
        let said = |problem: &Problem| (problem.status.as_u16(), problem.code.clone());
        let stopped = read(limits(100, soon, late), &["{}\n", "{"], Duration::ZERO, true).await;
        assert_eq!(said(&stopped), (408, "request_timeout".to_owned()));
        // Each chunk comes in time, but all of them together do not.
        let crawling = read(limits(100, late, soon), &["\n"; 90], soon / 5, false).await;
        assert_eq!(said(&crawling), (408, "request_timeout".to_owned()));
        let endless = read(limits(100, late, late), &["0123456789\n"; 10], Duration::ZERO, true).await;
        assert_eq!(said(&endless), (413, "payload_too_large".to_owned()));
        let one_line = read(limits(100, late, late), &["0123456789"; 11], Duration::ZERO, true).await;
        assert_eq!(said(&one_line), (413, "payload_too_large".to_owned()));
    }

    #[tokio::test]
    async fn a_batch_ends_by_its_bytes_in_every_format() {
        let text = "x".repeat(200_000);
        let feed = format!("<item><id>A</id><description>{text}</description></item>").repeat(12);
        let json = format!("{{\"name\": \"{text}\"}}\n").repeat(12);
        // Each variant becomes a product with the texts of all.
        let texts = "x".repeat(5000);
        let shopify =
            format!("Handle,Title,Body (HTML),Variant Price\na,A,{texts},1\n{}", "a,,,1\n".repeat(999));
        for (kind, file, most) in [
            (Kind::Feed(Options::default()), feed, 6),
            (Kind::Json, json, 6),
            (Kind::Csv(Options::default()), shopify, 250),
        ] {
            let (batches, mut queue) = mpsc::channel(100);
            let body = Body::from(file).into_data_stream();
            let (stop, counts) = (CancellationToken::new(), watch::Sender::default());
            let reader = Reader { body, limits: LIMITS, stop, batches, keep: false, counts };
            reader.run(File::new(kind, Encoding::Utf8)).await.expect("it is a file");
            let mut sizes = Vec::new();
            while let Some(batch) = queue.recv().await {
                sizes.push(batch.lines.len() + batch.errors.len());
            }
            assert!(sizes.len() > 2 && sizes.iter().all(|size| *size <= most), "{kind:?}: {sizes:?}");
        }
    }
}
