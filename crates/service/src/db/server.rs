//! The server that writes go to: found among the hosts, and told from those that only were it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row};
use tokio_util::sync::CancellationToken;

use super::address;
use super::commits::Commits;
use super::connection::Connection;
use super::errors::{Unanswered, is_read_only};

/// For opening a connection to one host.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// How long a host gets before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);

/// A connection is used for this long, and up to as long again, so that not all of a pool end together.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// A sign of life, and who gives it. A promoted standby writes on a new timeline; a restarted server has another
/// start time. <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>
pub(super) const IDENTIFY: &str = "SELECT current_setting('transaction_read_only'),
    CASE WHEN pg_is_in_recovery() THEN '0' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
    pg_postmaster_start_time()::text";

/// Which run of which server it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    timeline: u32,
    started: String,
}

/// What the sessions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// Requests, on the server itself.
    Direct,
    /// Requests, by a pooler that hands the server to another client after each transaction: no settings last.
    Pooled,
    /// A migration may take its time, but never wait for a lock: all who come after it would wait too.
    Migration,
}

impl Session {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Direct => &[
                ("statement_timeout", "10s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "15s"),
            ],
            Self::Pooled => &[],
            Self::Migration => &[
                ("statement_timeout", "0"),
                ("lock_timeout", "1s"),
                ("idle_in_transaction_session_timeout", "0"),
            ],
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    hosts: Vec<PgConnectOptions>,
    /// The host that was writable last: the first to be tried.
    last: AtomicUsize,
    present: Mutex<Present>,
    /// Whether the present server was there when it was last looked at.
    alive: AtomicBool,
    commits: Arc<Commits>,
}

#[derive(Debug, Default)]
struct Present {
    identity: Option<Identity>,
    retired: CancellationToken,
}

impl Server {
    /// `setting` is what `url` is called in errors. With `schema` as search path, but where a pooler is between.
    pub fn new(setting: &str, url: &str, schema: &str, session: Session) -> anyhow::Result<Self> {
        let with_settings = |options: PgConnectOptions| {
            let options = options.application_name(schema);
            match session {
                // PgBouncer knows neither of these.
                Session::Pooled => options.extra_float_digits(None),
                _ => options.options([("search_path", schema)]).options(session.settings().iter().copied()),
            }
        };
        Ok(Self {
            hosts: address::parse(setting, url)?.into_iter().map(with_settings).collect(),
            last: AtomicUsize::new(0),
            present: Mutex::default(),
            alive: AtomicBool::new(false),
            commits: Arc::default(),
        })
    }

    /// How the host that was writable last is reached.
    pub fn options(&self) -> PgConnectOptions {
        self.hosts[self.last.load(Ordering::Relaxed)].clone()
    }

    /// A connection to the present server.
    pub async fn connect(&self) -> sqlx::Result<Connection> {
        // What was on its way to a server that has been replaced meanwhile may never arrive.
        let replaced = self.present().retired.clone();
        let (raw, retired) = tokio::select! {
            opened = self.open() => opened?,
            () = replaced.cancelled() => self.open().await?,
        };
        let life = LIFE + LIFE.mul_f64(rand::random::<f64>());
        Ok(Connection::new(raw, retired, life, self.commits.clone()))
    }

    /// A connection to the first host that takes writes, and what ends when that server is replaced.
    pub async fn open(&self) -> sqlx::Result<(PgConnection, CancellationToken)> {
        let first = self.last.load(Ordering::Relaxed);
        let mut attempts: FuturesUnordered<_> = (0..self.hosts.len())
            .map(|turn| async move {
                let host = (first + turn) % self.hosts.len();
                tokio::time::sleep(HEAD_START * u32::try_from(turn).unwrap_or(u32::MAX)).await;
                (host, open(&self.hosts[host]).await)
            })
            .collect();
        let mut failure = None;
        while let Some((host, outcome)) = attempts.next().await {
            match outcome.and_then(|(raw, identity)| Ok((raw, self.meet(identity)?))) {
                Ok(opened) => {
                    self.last.store(host, Ordering::Relaxed);
                    return Ok(opened);
                }
                // That the others are away says less than that one is there and takes no writes.
                Err(error) if is_read_only(&error) => failure = Some(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(sqlx::Error::PoolClosed))
    }

    /// Notes who was reached. A server that is new retires all connections to the one before. A timeline that has been
    /// left is not gone back to while the present server lives: who was promoted has the orders.
    pub fn meet(&self, met: Identity) -> sqlx::Result<CancellationToken> {
        let mut present = self.present();
        match &present.identity {
            Some(known) if *known == met => {}
            Some(known) if met.timeline < known.timeline && self.alive.load(Ordering::Relaxed) => {
                return Err(Unanswered::ReadOnly.into());
            }
            known => {
                if let Some(known) = known {
                    tracing::warn!(before = %known, now = %met, "db.server_changed");
                    present.retired.cancel();
                    present.retired = CancellationToken::new();
                }
                present.identity = Some(met);
            }
        }
        Ok(present.retired.clone())
    }

    pub fn set_alive(&self, alive: bool) -> bool {
        self.alive.swap(alive, Ordering::Relaxed)
    }

    /// Whether it was there when it was last looked at, and its commits come through.
    pub fn is_writable(&self) -> bool {
        self.alive.load(Ordering::Relaxed) && !self.commits.are_stuck()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to this host, if it takes writes.
async fn open(host: &PgConnectOptions) -> sqlx::Result<(PgConnection, Identity)> {
    let opened = async {
        let mut raw = PgConnection::connect_with(host).await?;
        let identity = identify(&mut raw).await?;
        Ok((raw, identity))
    };
    let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in 5 s"));
    tokio::time::timeout(OPEN_DEADLINE, opened).await.unwrap_or_else(|_| Err(late()))
}

/// Who is on the other end; an error if it takes no writes.
pub(super) async fn identify(raw: &mut PgConnection) -> sqlx::Result<Identity> {
    let row = sqlx::raw_sql(IDENTIFY).fetch_one(raw).await?;
    let read_only: String = row.try_get(0)?;
    if read_only != "off" {
        return Err(Unanswered::ReadOnly.into());
    }
    let timeline: String = row.try_get(1)?;
    let timeline = u32::from_str_radix(&timeline, 16).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Identity { timeline, started: row.try_get(2)? })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeline {}, started at {}", self.timeline, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(timeline: u32, started: &str) -> Identity {
        Identity { timeline, started: started.to_owned() }
    }

    #[test]
    fn another_server_retires_the_connections_to_the_one_before() {
        let server = Server::new("X", "postgres://a,b/shop", "orders", Session::Direct).unwrap();
        let first = server.meet(identity(1, "noon")).unwrap();
        assert!(!server.meet(identity(1, "noon")).unwrap().is_cancelled());
        assert!(!first.is_cancelled());
        let second = server.meet(identity(2, "one")).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        let restarted = server.meet(identity(2, "two")).unwrap();
        assert!(second.is_cancelled() && !restarted.is_cancelled());
    }

    #[test]
    fn a_timeline_that_was_left_is_not_gone_back_to_while_the_present_server_lives() {
        let server = Server::new("X", "postgres://a,b/shop", "orders", Session::Direct).unwrap();
        let promoted = server.meet(identity(2, "one")).unwrap();
        server.set_alive(true);
        assert!(is_read_only(&server.meet(identity(1, "noon")).unwrap_err()));
        assert!(!promoted.is_cancelled());
        // A database that was set up anew begins with the first timeline again.
        server.set_alive(false);
        server.meet(identity(1, "tomorrow")).unwrap();
        assert!(promoted.is_cancelled());
    }
}
