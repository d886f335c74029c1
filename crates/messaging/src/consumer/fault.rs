//! The causes why an event could not be applied.

use service::db;

use super::APPLY_DEADLINE;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("not done within {} s", APPLY_DEADLINE.as_secs())]
    TookTooLong,
    /// The event can't be applied as it is.
    #[error("{0}")]
    Rejected(String),
    /// Its inbox row, if it had one, is deleted.
    #[error("too old to know whether it was applied before; `dlq replay --force` applies it")]
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The event is at fault: it would fail again.
    Event,
    /// The event or the database. It counts against the event only when others succeed meanwhile.
    Doubtful,
    /// Another transaction: this event may succeed next time, and others now.
    Busy,
    /// The database: no event can be applied.
    Store,
}

impl ApplyError {
    /// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    pub(super) fn fault(&self) -> Fault {
        let error = match self {
            Self::Rejected(_) | Self::Forgotten => return Fault::Event,
            Self::TookTooLong => return Fault::Doubtful,
            Self::Database(error) => error,
        };
        let code = error.as_database_error().and_then(|database| database.code()).unwrap_or_default();
        match (code.get(..2).unwrap_or_default(), error) {
            _ if db::timed_out(error) => Fault::Doubtful,
            ("40", _) => Fault::Busy,
            _ if code == "55P03" => Fault::Busy,
            // A read-only transaction, and one that was idle for too long, among them.
            ("25", _) => Fault::Store,
            _ if db::is_transient(error) => Fault::Store,
            // The content of the event does not fit: data, constraints, an error of a trigger.
            ("21" | "22" | "23" | "44" | "P0", _) => Fault::Event,
            (
                _,
                sqlx::Error::RowNotFound
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::ColumnDecode { .. },
            ) => Fault::Event,
            // A missing table or right, an error inside PostgreSQL, and every unknown error.
            _ => Fault::Doubtful,
        }
    }
}
