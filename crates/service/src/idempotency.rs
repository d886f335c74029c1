//! Idempotency-Keys of requests whose whole work is one transaction in our database.
//!
//! One transaction writes the effect, its answer and the key. A request that is repeated because its answer
//! was lost gets that answer and changes nothing. A request that died has left no key. (A request that also
//! calls other services needs more.)
//!
//! The service's schema has the table `idempotency_keys`.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use crate::Problem;
use crate::db::Connection;

/// How long a key is kept, counted from its answer.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys that [`sweep`] deletes at most.
const BATCH: i64 = 10_000;

/// The request's Idempotency-Key; 400 `idempotency_key_invalid` when it is not 1 to 255 visible ASCII characters,
/// given once.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let key = key.as_bytes();
    let visible = key.iter().all(u8::is_ascii_graphic);
    if key.is_empty() || key.len() > 255 || !visible || given.next().is_some() {
        let detail = "An Idempotency-Key is 1 to 255 visible ASCII characters, given once.";
        return Err(Problem::bad_request("idempotency_key_invalid", detail));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// 422: the key came with another body before.
pub fn reused() -> Problem {
    let detail = "This Idempotency-Key was used with another body.";
    Problem::unprocessable("idempotency_key_reused", detail)
}

/// 409: the first request with the key has not ended.
pub fn in_progress() -> Problem {
    let detail = "The first request with this Idempotency-Key is still running.";
    Problem::conflict("idempotency_in_progress", detail).with_retry_after(1)
}

/// Why a request with a key is not done.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the Idempotency-Key was used with another body")]
    Reused,
    #[error("the first request with the Idempotency-Key is still running")]
    InProgress,
    #[error("what is stored with the Idempotency-Key is no HTTP status")]
    Unreadable,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Reused => reused(),
            KeyError::InProgress => in_progress(),
            KeyError::Unreadable => Self::internal(),
            KeyError::Store(error) => error.into(),
        }
    }
}

/// A request that may have come with a key.
pub struct Request {
    user: Uuid,
    operation: &'static str,
    key: Option<String>,
    body_hash: Vec<u8>,
}

impl Request {
    /// `body` is the request in its parsed form, and what the path names: white space doesn't matter.
    pub fn new(
        user: Uuid,
        operation: &'static str,
        key: Option<String>,
        body: &impl Serialize,
    ) -> Result<Self, Problem> {
        let body = serde_json::to_vec(body).map_err(|_| Problem::internal())?;
        Ok(Self { user, operation, key, body_hash: digest(&SHA256, &body).as_ref().to_vec() })
    }

    /// The answer that the key has; give it once the transaction is committed. Without one the key is this
    /// transaction's until it ends. Always `None` without a key.
    pub async fn earlier(&self, transaction: &mut Connection) -> Result<Option<Answer>, KeyError> {
        let Some(key) = &self.key else { return Ok(None) };
        // Not waited for, so that a request that only repeats another one holds no connection.
        let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
            .bind(self.lock(key))
            .fetch_one(&mut *transaction)
            .await?;
        if !free {
            return Err(KeyError::InProgress);
        }
        // A statement of its own sees what the former holder of the lock has written. It writes something
        // itself, so that the commit of this transaction waits for the answer's: a failover can then no
        // longer take it away.
        let sql =
            "SELECT body_hash, status, headers, body, pg_logical_emit_message(true, 'dockside', '')::text
                   FROM idempotency_keys WHERE user_id = $1 AND operation = $2 AND key = $3";
        let stored = sqlx::query_as::<_, (Vec<u8>, i16, Json<Vec<(String, String)>>, String, String)>(sql)
            .bind(self.user)
            .bind(self.operation)
            .bind(key)
            .fetch_optional(transaction)
            .await?;
        let Some((body_hash, status, Json(headers), body, _)) = stored else { return Ok(None) };
        if body_hash != self.body_hash {
            return Err(KeyError::Reused);
        }
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or(KeyError::Unreadable)?;
        Ok(Some(Answer { status, headers, body, replayed: true }))
    }

    /// Stores the answer with the key, if there is one, in the transaction of the effect.
    pub async fn answered(&self, transaction: &mut Connection, answer: &Answer) -> Result<(), KeyError> {
        let Some(key) = &self.key else { return Ok(()) };
        let sql = "INSERT INTO idempotency_keys (user_id, operation, key, body_hash, status, headers, body)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
        let stored = sqlx::query(sql)
            .bind(self.user)
            .bind(self.operation)
            .bind(key)
            .bind(&self.body_hash)
            .bind(i16::try_from(answer.status.as_u16()).unwrap_or(500))
            .bind(Json(&answer.headers))
            .bind(&answer.body)
            .execute(transaction)
            .await?;
        // Impossible while the lock is held; if it happened, the effect must not happen twice.
        if stored.rows_affected() == 1 { Ok(()) } else { Err(KeyError::InProgress) }
    }

    /// The advisory lock of the key. Two keys in 2^64 share one, and then one of them is asked to come again.
    fn lock(&self, key: &str) -> i64 {
        let name = format!("{}\n{}\n{key}", self.user, self.operation);
        let hash = digest(&SHA256, name.as_bytes());
        hash.as_ref().iter().take(8).fold(0, |lock, byte| (lock << 8) | i64::from(*byte))
    }
}

/// An answer that can be stored with a key.
pub struct Answer {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: String,
    replayed: bool,
}

impl Answer {
    /// 201 with what was made.
    pub fn created(made: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(made).map_err(|_| Problem::internal())?;
        Ok(Self { status: StatusCode::CREATED, headers: Vec::new(), body, replayed: false })
    }

    /// Marks the request as done, where a repeated one is answered with the present state.
    pub fn done() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: String::new(), replayed: false }
    }

    /// A refusal that is final, however often it is asked for: nothing was changed.
    pub fn refused(problem: &Problem) -> Result<Self, Problem> {
        let body = serde_json::to_string(problem).map_err(|_| Problem::internal())?;
        Ok(Self { status: problem.status, headers: Vec::new(), body, replayed: false })
    }

    pub fn with_header(mut self, name: &HeaderName, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_owned()));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = if self.status.is_success() {
            (self.status, [(header::CONTENT_TYPE, "application/json")], self.body).into_response()
        } else {
            serde_json::from_str(&self.body).unwrap_or_else(|_| Problem::internal()).into_response()
        };
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        if self.replayed {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// Deletes up to 10,000 expired keys; true when there may be more.
pub async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let sql = "DELETE FROM idempotency_keys WHERE (user_id, operation, key) IN (
                   SELECT user_id, operation, key FROM idempotency_keys
                   WHERE answered_at < now() - make_interval(secs => $1) LIMIT $2)";
    let deleted = sqlx::query(sql).bind(KEY_LIFE.as_secs_f64()).bind(BATCH).execute(connection).await?;
    Ok(deleted.rows_affected() == BATCH as u64)
}

/// Deletes the keys of `users`. One that is locked is being deleted by [`sweep`].
pub async fn forget(connection: &mut Connection, users: &[Uuid]) -> sqlx::Result<()> {
    let sql = "DELETE FROM idempotency_keys WHERE (user_id, operation, key) IN (
                   SELECT user_id, operation, key FROM idempotency_keys
                   WHERE user_id = ANY($1) FOR UPDATE SKIP LOCKED)";
    sqlx::query(sql).bind(users).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_given_once() {
        let given = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).map_err(|problem| problem.code)
        };
        assert_eq!(given(&[]), Ok(None));
        assert_eq!(given(&[b"a key"]), Err("idempotency_key_invalid".to_owned()));
        assert_eq!(given(&[&[b'~'; 255]]), Ok(Some("~".repeat(255))));
        for bad in [&[&b""[..]][..], &[&[b'k'; 256]], &[b"k\xc3\xa9"], &[b"a", b"a"]] {
            assert_eq!(given(bad), Err("idempotency_key_invalid".to_owned()), "{bad:?}");
        }
    }
}
