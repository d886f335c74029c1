//! Calls with a deadline, the trace and a token, which are made again where that is safe.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::propagation::Injector;
use tokio::time::timeout_at;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::replicas::Tried;
use crate::telemetry;

/// Pauses before a call whose connection ended is made again. At once it may
/// still meet the connection that is going.
const CALL_AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];

/// How many calls to one peer may be made again: a tenth of those that are made,
/// and [`Self::IN_HAND`] more, which is what one connection may lose when it ends.
/// A peer that is away gets no more than that on top.
#[derive(Clone)]
pub struct Retries(Arc<AtomicU32>);

impl Retries {
    /// Saved up at most, and at the start.
    pub const IN_HAND: u32 = 50;
    const CALLS_FOR_ONE: u32 = 10;

    fn earn(&self) {
        let most = Self::IN_HAND * Self::CALLS_FOR_ONE;
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| (saved < most).then_some(saved + 1));
    }

    fn spend(&self) -> bool {
        let take = |saved: u32| saved.checked_sub(Self::CALLS_FOR_ONE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(Self::IN_HAND * Self::CALLS_FOR_ONE)))
    }
}

/// Makes a call that is safe to repeat, with [`request`]'s parameters. If its connection ended, makes it
/// again in the time that is left, as `retries` allow: at another replica, where there is one. A server that
/// stops sends its clients a GOAWAY. A call that is about to go out then is not moved to the next connection:
/// hyper fails it, unsent. A call that the server itself refuses is not made again here. The deadline is kept
/// here too: tonic's begins once there is a connection, and ends with the answer's headers.
pub async fn call<M: Clone, R, F>(
    retries: &Retries,
    message: M,
    deadline: Duration,
    token: &str,
    call: impl Fn(Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let until = Instant::now() + deadline;
    let call = |request| {
        let answer = timeout_at(until.into(), call(request));
        async { answer.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) }
    };
    let tried = Tried::default();
    let request = |left: Duration| {
        let mut request = request(message.clone(), left, token)?;
        request.extensions_mut().insert(tried.clone());
        Ok::<_, Status>(request)
    };
    retries.earn();
    let mut result = call(request(deadline)?).await;
    for pause in CALL_AGAIN_AFTER {
        let Err(status) = &result else { break };
        // A server's answer, and a deadline, have another source or none.
        let ended = status.source().is_some_and(|source| source.is::<tonic::transport::Error>());
        // Apart, so that those whose connection ended together don't come back together.
        let pause = pause.mul_f64(rand::random_range(0.5..1.5));
        let left = until.saturating_duration_since(Instant::now()).saturating_sub(pause);
        if !ended || left.is_zero() || !retries.spend() {
            break;
        }
        tracing::debug!(error = status.message(), "grpc.call_again");
        tokio::time::sleep(pause).await;
        result = call(request(left)?).await;
    }
    result.map(Response::into_inner)
}

/// A request that carries the trace, the caller's token, and its deadline
/// (`grpc-timeout`, which `Endpoint::timeout` would not send).
pub fn request<T>(message: T, deadline: Duration, token: &str) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    telemetry::inject_trace(&mut MetadataMut(request.metadata_mut()));
    let mut value: tonic::metadata::MetadataValue<_> =
        format!("Bearer {token}").parse().map_err(|_| Status::internal("the token is not a header value"))?;
    value.set_sensitive(true);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

struct MetadataMut<'a>(&'a mut MetadataMap);

impl Injector for MetadataMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (key.parse::<tonic::metadata::MetadataKey<tonic::metadata::Ascii>>(), value.parse())
        {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_carries_its_deadline_and_its_token() {
        let request = request((), Duration::from_secs(3), "secret").unwrap();
        assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "3000000u");
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer secret");
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends_at_its_deadline() {
        let silent = |_| std::future::pending::<Result<Response<()>, Status>>();
        let retries = Retries::default();
        let call = call(&retries, (), Duration::from_millis(50), "token", silent);
        let ended = tokio::time::timeout(Duration::from_secs(10), call).await.expect("it ends");
        assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    }
}
