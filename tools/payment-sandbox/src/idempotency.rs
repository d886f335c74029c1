//! One effect per `Idempotency-Key`: <https://docs.stripe.com/api/idempotent_requests>.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// How long an answer is kept, in milliseconds.
const KEPT_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// A status and its JSON body, kept as the bytes that were sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub body: Box<RawValue>,
}

impl Answer {
    pub fn new(status: StatusCode, body: &serde_json::Value) -> Self {
        // A `Value` has string keys only, the one thing that JSON could refuse.
        let body = serde_json::value::to_raw_value(body).expect("a JSON value is writable as JSON");
        Self { status: status.as_u16(), body }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body.get().to_owned()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A client's key, and the fingerprint of the request that it came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub key: String,
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub fingerprint: [u8; 32],
}

impl Key {
    /// The fingerprint covers path and parameters; a length before each part keeps `a=bc` and `ab=c` apart.
    pub fn new(key: String, path: &str, params: &BTreeMap<String, String>) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(path).chain(params.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()])) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self { key, fingerprint: hash.finalize().into() }
    }
}

fn to_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(D::Error::custom)?;
    Ok(bytes)
}

/// A key's answer as it stands in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub request: Key,
    pub answer: Answer,
}

enum State {
    InFlight,
    Answered { at: u64, answer: Answer },
}

/// All keys of the last 24 hours.
#[derive(Default)]
pub struct Keys {
    entries: HashMap<Arc<str>, ([u8; 32], State)>,
    by_age: VecDeque<(u64, Arc<str>)>,
}

impl Keys {
    /// Takes the key for a request that starts now (`now` in Unix milliseconds).
    /// Returns None when the request is to be run, or the stored answer of the first one.
    pub fn claim(&mut self, key: &Key, now: u64) -> Result<Option<Answer>, ApiError> {
        self.forget_old(now);
        match self.entries.get(&*key.key) {
            None => {
                self.entries.insert(key.key.as_str().into(), (key.fingerprint, State::InFlight));
                Ok(None)
            }
            Some((fingerprint, _)) if *fingerprint != key.fingerprint => Err(ApiError::key_reused(&key.key)),
            Some((_, State::InFlight)) => Err(ApiError::key_in_use(&key.key)),
            Some((_, State::Answered { answer, .. })) => Ok(Some(answer.clone())),
        }
    }

    /// Keeps the first answer (`at` in Unix milliseconds).
    pub fn answered(&mut self, key: &Key, answer: Answer, at: u64) {
        let taken = self.entries.remove_entry(&*key.key);
        let name = taken.map_or_else(|| key.key.as_str().into(), |(name, _)| name);
        self.by_age.push_back((at, Arc::clone(&name)));
        self.entries.insert(name, (key.fingerprint, State::Answered { at, answer }));
    }

    /// Frees a key whose request ended without an answer to keep.
    pub fn release(&mut self, key: &Key) {
        if matches!(self.entries.get(&*key.key), Some((_, State::InFlight))) {
            self.entries.remove(&*key.key);
        }
    }

    /// Drops the answers older than 24 hours at `now` (Unix milliseconds).
    pub fn forget_old(&mut self, now: u64) {
        while let Some((at, _)) = self.by_age.front()
            && at + KEPT_MILLIS < now
        {
            let Some((at, key)) = self.by_age.pop_front() else {
                break;
            };
            // The key may be in use again, by a newer request.
            if matches!(self.entries.get(&key), Some((_, State::Answered { at: kept, .. })) if *kept == at) {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(params: &[(&str, &str)]) -> Key {
        let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Key::new("k".into(), "/v1/refunds", &params)
    }

    #[test]
    fn a_fingerprint_distinguishes_a_name_from_its_value() {
        assert_ne!(key(&[("a", "bc")]).fingerprint, key(&[("ab", "c")]).fingerprint);
        assert_eq!(key(&[("a", "1"), ("b", "2")]), key(&[("b", "2"), ("a", "1")]));
    }

    #[test]
    fn an_answer_is_forgotten_after_24_hours_and_its_key_is_free_again() {
        let mut keys = Keys::default();
        assert!(keys.claim(&key(&[]), 0).unwrap().is_none());
        assert!(keys.claim(&key(&[]), 0).is_err(), "in flight");
        keys.answered(&key(&[]), Answer::new(StatusCode::OK, &serde_json::json!({})), 0);
        assert!(keys.claim(&key(&[]), KEPT_MILLIS).unwrap().is_some());
        assert!(keys.claim(&key(&[("other", "1")]), KEPT_MILLIS).is_err(), "other parameters");
        assert!(keys.claim(&key(&[("other", "1")]), KEPT_MILLIS + 1).unwrap().is_none());
    }
}
