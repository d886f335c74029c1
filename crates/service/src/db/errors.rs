//! The meaning of the database's errors, in one place.

use std::fmt;
use std::io;

use money::{Currency, Money};

/// What an error says about the statement that got it, and so what may be done next.
/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection is gone, or leads to a server that takes no writes. The same statement may succeed on
    /// another one.
    OtherConnection,
    /// The database is busy, full, or ended this transaction in favour of another. The same statement may
    /// succeed later.
    Later,
    /// The answer to COMMIT did not come: the transaction may be committed, now or in a while. Only a caller
    /// that can repeat the whole operation without a second effect may repeat it.
    OutcomeUnknown,
    /// The statement or its values are wrong. It would fail again.
    Statement,
}

/// What `error` means.
pub fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Io(_) => match unanswered(error) {
            Some(Unanswered::Commit) => Kind::OutcomeUnknown,
            Some(Unanswered::Abandoned) => Kind::Later,
            _ => Kind::OtherConnection,
        },
        sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => Kind::OtherConnection,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Kind::Later,
        sqlx::Error::Database(database) => database.code().map_or(Kind::Statement, |code| of_code(&code)),
        _ => Kind::Statement,
    }
}

fn of_code(code: &str) -> Kind {
    match code {
        // read_only_sql_transaction: the server is a standby by now, or its disk is nearly full.
        "25006" => Kind::OtherConnection,
        // The server ends, is started, was reset, or dropped its idle session.
        "57P01" | "57P02" | "57P03" | "57P05" => Kind::OtherConnection,
        // lock_not_available; the session's or the transaction's time was up.
        "55P03" | "25P03" | "25P04" => Kind::Later,
        _ => match code.get(..2).unwrap_or_default() {
            "08" => Kind::OtherConnection,
            // Rolled back for another's sake; no memory, disk or place; cancelled; the operating system's error.
            "40" | "53" | "57" | "58" => Kind::Later,
            _ => Kind::Statement,
        },
    }
}

/// Whether the same call may well succeed later: anything but [`Kind::Statement`]. After [`Kind::OutcomeUnknown`] it may
/// also have succeeded already.
pub fn is_transient(error: &sqlx::Error) -> bool {
    kind(error) != Kind::Statement
}

/// Whether a statement was ended by its time limit.
pub fn timed_out(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).as_deref() == Some("57014")
}

/// The constraint that a statement broke, by name.
pub fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|database| database.constraint())
}

/// A statement found other rows than it must: a defect, in the code or the data. It travels inside an [`sqlx::Error`], as
/// what does not fit a column does.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a defect: {0}")]
pub struct Defect(pub &'static str);

impl From<Defect> for sqlx::Error {
    fn from(defect: Defect) -> Self {
        Self::Decode(defect.into())
    }
}

/// An amount and its currency as two columns have them.
pub fn money(amount: i64, currency: &str) -> Result<Money, Defect> {
    let currency = Currency::from_code(currency).ok_or(Defect("a column has no currency's code"))?;
    Ok(Money::new(amount, currency))
}

/// Why a statement has no answer: its connection was closed, or could not be had, or its turn did not come.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Its statement's deadline passed.
    Statement,
    /// COMMIT's deadline passed, or its connection was lost.
    Commit,
    /// Its batch was abandoned before its turn.
    Abandoned,
    /// Another server took over.
    Retired,
    /// It was closed by an earlier error.
    Closed,
    /// The server that was reached takes no writes.
    ReadOnly,
    /// The session's settings have no effect: there is a pooler that is not in the settings.
    Unannounced,
    /// Opening a connection failed, for this reason: no statement is to blame.
    Unreachable(sqlx::Error),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement => f.write_str("the database did not answer in time"),
            Self::Commit => f.write_str("the database did not say whether the transaction is committed"),
            Self::Abandoned => f.write_str("the batch was abandoned before this was begun"),
            Self::Retired => f.write_str("another database server took over"),
            Self::Closed => f.write_str("the connection was closed after an earlier error"),
            Self::ReadOnly => {
                f.write_str("the database server takes no writes: it is a standby or read-only")
            }
            Self::Unannounced => f.write_str("the session's settings have no effect: a pooler is between"),
            Self::Unreachable(error) => write!(f, "no connection to the database: {error}"),
        }
    }
}

impl std::error::Error for Unanswered {}

impl From<Unanswered> for sqlx::Error {
    fn from(why: Unanswered) -> Self {
        Self::Io(io::Error::other(why))
    }
}

/// For the rest of a batch that is abandoned.
pub fn abandoned() -> sqlx::Error {
    Unanswered::Abandoned.into()
}

/// For each item of a batch whose COMMIT was not answered.
pub(crate) fn outcome_unknown() -> sqlx::Error {
    Unanswered::Commit.into()
}

fn unanswered(error: &sqlx::Error) -> Option<&Unanswered> {
    let sqlx::Error::Io(io) = error else { return None };
    io.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether the server that was reached takes no writes.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(unanswered(error), Some(Unanswered::ReadOnly))
}

/// Whether a pooler answered that is not in the settings. PgBouncer refuses a session's settings, unless it
/// is configured to ignore them.
pub(super) fn is_unannounced(error: &sqlx::Error) -> bool {
    matches!(unanswered(error), Some(Unanswered::Unannounced))
        || error.to_string().contains("unsupported startup parameter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_of_one_kind() {
        for (codes, expected) in [
            (&["25006", "57P01", "57P02", "57P03", "08006", "08P01"][..], Kind::OtherConnection),
            (&["40001", "40P01", "53100", "53300", "55P03", "57014", "58030", "25P03"], Kind::Later),
            (&["23505", "22P02", "42P01", "25P02", "XX000", ""], Kind::Statement),
        ] {
            for code in codes {
                assert_eq!(of_code(code), expected, "{code}");
            }
        }
    }

    #[test]
    fn only_a_commit_leaves_its_outcome_open() {
        assert_eq!(kind(&Unanswered::Commit.into()), Kind::OutcomeUnknown);
        for why in [Unanswered::Statement, Unanswered::Retired, Unanswered::Closed, Unanswered::ReadOnly] {
            assert_eq!(kind(&why.into()), Kind::OtherConnection);
        }
        // A wrong password is not the fault of a statement.
        let unreachable = Unanswered::Unreachable(sqlx::Error::Configuration("x".into()));
        assert!(is_transient(&unreachable.into()));
        assert_eq!(kind(&sqlx::Error::PoolTimedOut), Kind::Later);
        assert_eq!(kind(&abandoned()), Kind::Later);
        assert_eq!(kind(&Defect("x").into()), Kind::Statement);
        assert_eq!(kind(&sqlx::Error::RowNotFound), Kind::Statement);
    }
}
