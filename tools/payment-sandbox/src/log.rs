//! The append-only log: one JSON object per line, written by one thread, on disk before anyone gets an
//! answer.
//!
//! Group commit: whatever was queued while the last `fdatasync` ran is written with one call and shares the next.
//! A failed write or sync ends the log for good: after a failed sync the kernel may have dropped the pages, and
//! trying again would report a success that is none (<https://wiki.postgresql.org/wiki/Fsync_Errors>).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

/// Appends that one write takes at most.
const BATCH: usize = 1024;

/// How long opening waits for the log of another process.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Log {
    queue: Mutex<Queue>,
    /// How many appends of this run are on disk; closed when no more will be.
    durable: watch::Receiver<u64>,
}

struct Queue {
    appended: u64,
    /// None once the log is closed.
    lines: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

impl Log {
    /// Opens the log, creating it when it is missing, and gives each line to `replay`.
    /// A last line without its end is cut off: it was never acknowledged. Any other bad line is an error.
    pub fn open<T: DeserializeOwned>(
        path: &Path,
        mut replay: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        lock(&file)?;
        let (whole, torn) = read(&file, &mut replay)?;
        if torn > 0 {
            tracing::warn!(bytes = torn, "cut off a torn last line");
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::Start(whole))?;
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            // A new file's name is durable once its directory is.
            File::open(directory)?.sync_all()?;
        }
        let (lines, queued) = mpsc::unbounded_channel();
        let (on_disk, durable) = watch::channel(0);
        std::thread::Builder::new().name("log".into()).spawn(move || write(file, queued, &on_disk))?;
        Ok(Self { queue: Mutex::new(Queue { appended: 0, lines: Some(lines) }), durable })
    }

    /// Queues a line and returns its number in this run, to wait for with [`Log::durable`].
    /// The queue is as long as the requests under way are many.
    pub fn append(&self, line: &impl Serialize) -> anyhow::Result<u64> {
        let mut bytes = serde_json::to_vec(line).context("writing a line as JSON")?;
        bytes.push(b'\n');
        let mut queue = self.queue();
        queue.lines.as_ref().and_then(|lines| lines.send(bytes).ok()).context("the log is closed")?;
        queue.appended += 1;
        Ok(queue.appended)
    }

    /// The number of the last line that was queued.
    pub fn last(&self) -> u64 {
        self.queue().appended
    }

    /// Waits until that line, and with it every earlier one, is on disk.
    pub async fn durable(&self, line: u64) -> anyhow::Result<()> {
        let mut durable = self.durable.clone();
        durable.wait_for(|on_disk| *on_disk >= line).await.context("the log is closed")?;
        Ok(())
    }

    /// Takes no more lines, and returns once the queued ones are written and the file is closed.
    pub async fn close(&self) {
        self.queue().lines = None;
        self.ended().await;
    }

    /// Returns when nothing more will be written: after [`Log::close`], or when the disk failed.
    pub async fn ended(&self) {
        let mut durable = self.durable.clone();
        while durable.changed().await.is_ok() {}
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Each change of the queue is a single assignment: a panic can't leave it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two writers would interleave their histories. A predecessor that is just
/// ending may hold the lock for a moment longer.
fn lock(file: &File) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = file.try_lock() {
        if Instant::now() > deadline {
            return Err(error).context("another process uses this log");
        }
        #[expect(clippy::disallowed_methods, reason = "at start, before anything is served")]
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Replays the whole lines; returns their length and that of a torn one after them, in bytes.
fn read<T: DeserializeOwned>(
    file: &File,
    replay: &mut impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    let mut whole = 0;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") {
            return Ok((whole, length));
        }
        match serde_json::from_slice(&line) {
            Ok(entry) => replay(entry).with_context(|| format!("line {number}"))?,
            Err(error) => bail!("line {number} is corrupt: {error}"),
        }
        whole += length;
    }
    unreachable!("the file ends before the numbers do")
}

fn write(mut file: File, mut queued: mpsc::UnboundedReceiver<Vec<u8>>, on_disk: &watch::Sender<u64>) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        let count = queued.blocking_recv_many(&mut batch, BATCH);
        if count == 0 {
            return;
        }
        if let Err(error) = file.write_all(&batch.concat()).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "the log can't be written");
            return;
        }
        on_disk.send_modify(|lines| *lines += count as u64);
    }
}
