//! The server that takes writes: found among the hosts, and distinguished from servers that were it before.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection as _, Row};
use tokio_util::sync::CancellationToken;

use super::address;
use super::connection::Connection;
use super::errors::{Unanswered, is_read_only, is_unannounced};

/// For opening a connection to one host.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// How long a host gets before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);

/// A connection is used for this long, and up to as long again, so that not all of a pool end together.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// For this long a server that was reached counts as the present one, whether or not the watch has reached it
/// yet.
const REMEMBERED: Duration = Duration::from_secs(30);

/// A sign of life, and who gives it. A promoted standby writes on a new timeline; a restarted server has another
/// start time. <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>
/// And whether commits of this role wait for a synchronous standby, which every other answer leaves open.
const IDENTIFY: &str = "SELECT current_setting('transaction_read_only'),
    CASE WHEN pg_is_in_recovery() THEN '0' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
    pg_postmaster_start_time()::text,
    current_setting('lock_timeout'),
    EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = current_user
            AND state_change < now() - interval '2 s')::text,
    (current_setting('synchronous_standby_names') <> '')::text";

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
    /// A migration may take its time, but never waits for a lock: everybody who comes after it would wait
    /// too.
    Migration,
}

impl Session {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Direct => &[
                ("statement_timeout", "10s"),
                ("lock_timeout", "5s"),
                // For the locks of a client that is cut off in a transaction. Our clients don't pause in one.
                ("idle_in_transaction_session_timeout", "4s"),
                // Planning a statement costs nearly as much as running it. PostgreSQL itself keeps a plan only where it
                // expects it to be as cheap as one for the values at hand. For a short list it never does.
                // A transaction that needs a plan for its values sets this for itself.
                ("plan_cache_mode", "force_generic_plan"),
                // A plan that is kept must suit a table that grows: reading all of it is the last resort.
                ("enable_seqscan", "off"),
                // Without seqscan a statement that has to read a whole table looks so expensive that it would be compiled.
                ("jit", "off"),
                // A client that vanished keeps no locks for hours.
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
            ],
            Self::Pooled => &[],
            Self::Migration => &[
                ("statement_timeout", "0"),
                ("lock_timeout", "1s"),
                ("idle_in_transaction_session_timeout", "0"),
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
            ],
        }
    }

    /// As the server shows it: by this the session checks that its settings have effect.
    fn lock_timeout(self) -> Option<&'static str> {
        match self {
            Self::Direct => Some("5s"),
            Self::Pooled => None,
            Self::Migration => Some("1s"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    /// What its address is called in errors.
    setting: &'static str,
    hosts: Vec<PgConnectOptions>,
    session: Session,
    /// The host that was writable last: the first to be tried.
    last: AtomicUsize,
    present: Mutex<Present>,
    /// Whether the present server was there at the last check.
    alive: AtomicBool,
    /// It was not there at the last check.
    away: AtomicBool,
    /// Whether commits were seen to wait for a standby.
    commits_wait: AtomicBool,
}

#[derive(Debug, Default)]
struct Present {
    identity: Option<Identity>,
    /// The place in the list of the host that led there.
    host: usize,
    met: Option<Instant>,
    retired: CancellationToken,
}

impl Server {
    /// `setting` is what `url` is called in errors. With `schema` as search path, but where a pooler is between.
    pub fn new(setting: &'static str, url: &str, schema: &str, session: Session) -> anyhow::Result<Self> {
        let with_settings = |options: PgConnectOptions| {
            // sqlx asks for each statement whether it would be logged. Where it would not, tracing-subscriber takes the next
            // line of ours for that statement's, and drops it. What is slow is logged all the same.
            let options = options.application_name(schema).log_statements(log::LevelFilter::Off);
            match session {
                // PgBouncer knows neither of these.
                Session::Pooled => options.extra_float_digits(None),
                _ => options.options([("search_path", schema)]).options(session.settings().iter().copied()),
            }
        };
        Ok(Self {
            setting,
            hosts: address::parse(setting, url)?.into_iter().map(with_settings).collect(),
            session,
            last: AtomicUsize::new(0),
            present: Mutex::default(),
            alive: AtomicBool::new(false),
            away: AtomicBool::new(false),
            commits_wait: AtomicBool::new(false),
        })
    }

    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Whether one host may take over from another.
    pub fn has_several_hosts(&self) -> bool {
        self.hosts.len() > 1
    }

    /// The place in the list of the host that was writable last.
    pub fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed)
    }

    /// How that host is reached.
    pub fn options(&self) -> PgConnectOptions {
        self.hosts[self.last()].clone()
    }

    /// A connection to the present server.
    pub async fn connect(&self) -> sqlx::Result<Connection> {
        // A connection on its way to a server that was replaced meanwhile may never be answered.
        let replaced = self.present().retired.clone();
        let (raw, retired) = tokio::select! {
            opened = self.open() => opened?,
            () = replaced.cancelled() => self.open().await?,
        };
        let life = LIFE + LIFE.mul_f64(rand::random::<f64>());
        Ok(Connection::new(raw, retired, life))
    }

    /// A connection to the first host that takes writes, and what is cancelled when that server is replaced.
    pub async fn open(&self) -> sqlx::Result<(PgConnection, CancellationToken)> {
        let first = self.last();
        let mut attempts: FuturesUnordered<_> = (0..self.hosts.len())
            .map(|turn| async move {
                let host = (first + turn) % self.hosts.len();
                tokio::time::sleep(HEAD_START * u32::try_from(turn).unwrap_or(u32::MAX)).await;
                (host, open(&self.hosts[host], self.session).await)
            })
            .collect();
        let mut failure = None;
        while let Some((host, outcome)) = attempts.next().await {
            match outcome.and_then(|(raw, identity)| Ok((raw, self.meet(identity, host)?))) {
                Ok(opened) => {
                    self.last.store(host, Ordering::Relaxed);
                    return Ok(opened);
                }
                // The error of a server that takes no writes says more than the errors of those that are
                // away.
                Err(error) if is_read_only(&error) || is_unannounced(&error) => failure = Some(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(sqlx::Error::PoolClosed))
    }

    /// Records which server was reached, and by which host of the list. A new server retires all connections
    /// to the one before. So does another way to the same server while the one before is silent. A timeline
    /// that was left is not used again while the present server lives: the promoted server has the new rows.
    pub fn meet(&self, met: Identity, host: usize) -> sqlx::Result<CancellationToken> {
        let mut present = self.present();
        let alive = self.alive.load(Ordering::Relaxed);
        let lately = alive || present.met.is_some_and(|at| at.elapsed() < REMEMBERED);
        match &present.identity {
            Some(known) if *known == met && (present.host == host || alive) => {}
            Some(known) if met.timeline < known.timeline && lately => {
                return Err(Unanswered::ReadOnly.into());
            }
            known => {
                if let Some(known) = known {
                    tracing::warn!(before = %known, now = %met, "db.server_changed");
                    present.retired.cancel();
                    present.retired = CancellationToken::new();
                }
                (present.identity, present.host) = (Some(met), host);
            }
        }
        present.met = Some(Instant::now());
        Ok(present.retired.clone())
    }

    pub fn set_alive(&self, alive: bool) -> bool {
        self.away.store(!alive, Ordering::Relaxed);
        self.alive.swap(alive, Ordering::Relaxed)
    }

    /// Whether it is watched and was not there at the last check.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub fn set_commits_wait(&self, wait: bool) {
        if self.commits_wait.swap(wait, Ordering::Relaxed) != wait {
            tracing::warn!(wait, "db.commits_wait");
        }
    }

    /// Whether commits wait for a standby. A new connection would soon wait there too, and the server has
    /// only so many places.
    pub fn commits_wait(&self) -> bool {
        self.commits_wait.load(Ordering::Relaxed)
    }

    /// Whether it was there at the last check, and its commits came through.
    pub fn is_writable(&self) -> bool {
        self.alive.load(Ordering::Relaxed) && !self.commits_wait()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to this host, if it takes writes.
async fn open(host: &PgConnectOptions, session: Session) -> sqlx::Result<(PgConnection, Identity)> {
    let opened = async {
        let mut raw = PgConnection::connect_with(host).await?;
        let life = identify(&mut raw).await?;
        match session.lock_timeout() {
            Some(expected) if life.lock_timeout != expected => Err(Unanswered::Unannounced.into()),
            _ => Ok((raw, life.identity)),
        }
    };
    let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in 5 s"));
    tokio::time::timeout(OPEN_DEADLINE, opened).await.unwrap_or_else(|_| Err(late()))
}

/// What a server says of itself.
pub(super) struct Life {
    pub identity: Identity,
    pub commits_wait: bool,
    /// Its commits wait for a standby, as long as that takes.
    pub synchronous: bool,
    lock_timeout: String,
}

/// The server at the other end; an error if it takes no writes.
pub(super) async fn identify(raw: &mut PgConnection) -> sqlx::Result<Life> {
    let row = sqlx::raw_sql(IDENTIFY).fetch_one(raw).await?;
    let read_only: String = row.try_get(0)?;
    if read_only != "off" {
        return Err(Unanswered::ReadOnly.into());
    }
    let timeline: String = row.try_get(1)?;
    let timeline = u32::from_str_radix(&timeline, 16).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let (commits_wait, synchronous): (String, String) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Life {
        identity: Identity { timeline, started: row.try_get(2)? },
        commits_wait: commits_wait == "true",
        synchronous: synchronous == "true",
        lock_timeout: row.try_get(3)?,
    })
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
        let first = server.meet(identity(1, "noon"), 0).unwrap();
        assert!(!server.meet(identity(1, "noon"), 0).unwrap().is_cancelled());
        assert!(!first.is_cancelled());
        let second = server.meet(identity(2, "one"), 0).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        let restarted = server.meet(identity(2, "two"), 0).unwrap();
        assert!(second.is_cancelled() && !restarted.is_cancelled());
    }

    #[test]
    fn another_way_to_a_server_retires_those_by_a_way_that_is_silent_only() {
        let server = Server::new("X", "postgres://a,b/shop", "orders", Session::Direct).unwrap();
        let by_a = server.meet(identity(1, "noon"), 0).unwrap();
        server.set_alive(true);
        server.meet(identity(1, "noon"), 1).unwrap();
        assert!(!by_a.is_cancelled());
        server.set_alive(false);
        let by_b = server.meet(identity(1, "noon"), 1).unwrap();
        assert!(by_a.is_cancelled() && !by_b.is_cancelled());
    }

    #[test]
    fn a_timeline_that_was_left_is_not_gone_back_to_while_the_present_server_lives() {
        let server = Server::new("X", "postgres://a,b/shop", "orders", Session::Direct).unwrap();
        let promoted = server.meet(identity(2, "one"), 0).unwrap();
        // Though the watch has not reached it yet.
        for alive in [true, false] {
            server.set_alive(alive);
            assert!(is_read_only(&server.meet(identity(1, "noon"), 1).unwrap_err()));
        }
        assert!(!promoted.is_cancelled());
        // A database that was set up anew begins with the first timeline again.
        server.present().met = Instant::now().checked_sub(REMEMBERED);
        server.meet(identity(1, "tomorrow"), 0).unwrap();
        assert!(promoted.is_cancelled());
    }
}
