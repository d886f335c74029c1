//! Follows an order until it has ended: by its events, or by reading it again and again.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde::Deserialize;
use uuid::Uuid;

use crate::http::{Call, Failure};
use crate::journey::Shopper;
use crate::plan::Follow;
use crate::record::{End, Kind};
use crate::shop::{self, Order, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A stream that ends too early is opened again so often; after that the order is read.
const STREAMS: usize = 3;
/// More without an end of line is no stream of events.
const LONGEST_LINE: usize = 1 << 20;

/// What an event says of its order.
#[derive(Deserialize)]
struct Event<'a> {
    status: Status,
    #[serde(borrow)]
    cancel_reason: Option<std::borrow::Cow<'a, str>>,
}

fn end(status: Status, reason: Option<&str>) -> Option<End> {
    match status {
        Status::Pending => None,
        Status::Confirmed | Status::PartiallyShipped | Status::Shipped | Status::Delivered => {
            Some(End::Confirmed)
        }
        Status::Cancelled => Some(End::Cancelled(reason.unwrap_or("unknown").to_owned())),
    }
}

/// What became of an order, as the shop's answers say it by `until`.
pub(crate) async fn follow(shopper: &mut Shopper, order: Uuid, until: Instant) -> End {
    if shopper.run.plan.follow == Follow::Sse {
        for _ in 0..STREAMS {
            if let Some(end) = listen(shopper, order, until).await {
                return end;
            }
            let now = Instant::now();
            if now >= until {
                return End::Unknown;
            }
            tokio::time::sleep(FIRST_PAUSE.min(until - now)).await;
        }
    }
    read(shopper, order, until).await
}

/// Reads the order again and again, ever less often.
async fn read(shopper: &mut Shopper, order: Uuid, until: Instant) -> End {
    let path = format!("/api/v1/orders/{order}");
    let mut pause = FIRST_PAUSE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return End::Unknown;
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        let call = Call { token: shopper.token(), ..Call::get(&path) };
        let Ok(answer) = shopper.send(Kind::Read, call).await else { continue };
        if let Ok(order) = shop::document::<Order>(&answer)
            && let Some(end) = end(order.status, order.cancel_reason.as_deref())
        {
            return end;
        }
    }
}

/// Listens to the order's events; None when the stream ended before the order did.
async fn listen(shopper: &mut Shopper, order: Uuid, until: Instant) -> Option<End> {
    let path = format!("/api/v1/orders/{order}/events");
    let call = Call { token: shopper.token(), ..Call::get(&path) };
    let due = shopper.due();
    shopper.run.recorder.sent();
    let answer = shopper.run.client.stream(call).await;
    let took = due.elapsed();
    let mut body = match answer {
        Ok(answer) if answer.status() == 200 => {
            shopper.answered(Kind::Events, took, None);
            answer.into_body()
        }
        Ok(answer) => {
            let status = answer.status().as_u16();
            let name = if status == 429 { "rate_limited".to_owned() } else { format!("http_{status}") };
            shopper.answered(Kind::Events, took, Some(&name));
            return None;
        }
        Err(failure) => {
            shopper.answered(Kind::Events, took, Some(failure.name()));
            return None;
        }
    };
    let mut lines = Lines::default();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let frame = tokio::time::timeout(left, body.frame()).await;
        let Ok(frame) = frame else { return Some(End::Unknown) };
        let Some(Ok(frame)) = frame else {
            shopper.broke(Kind::Events, Failure::ConnectionLost);
            return None;
        };
        let Some(data) = frame.data_ref() else { continue };
        if let Some(end) = lines.push(data) {
            return Some(end);
        }
        if lines.pending.len() > LONGEST_LINE {
            return None;
        }
    }
}

/// Finds the end of an order in a stream of events.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Option<End> {
        self.pending.extend_from_slice(data);
        let mut done = 0;
        while let Some(length) = self.pending[done..].iter().position(|byte| *byte == b'\n') {
            let line = &self.pending[done..done + length];
            done += length + 1;
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            if let Ok(event) = serde_json::from_slice::<Event>(data)
                && let Some(end) = end(event.status, event.cancel_reason.as_deref())
            {
                return Some(end);
            }
        }
        self.pending.drain(..done);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_found_however_the_stream_is_cut() {
        let stream = b"id: 1\nevent: status\ndata: {\"status\":\"pending\",\"cancel_reason\":null}\n\n: still here\n\n\
                       id: 2\nevent: status\ndata: {\"status\":\"confirmed\",\"cancel_reason\":null}\n\n";
        for size in [1, 7, 64, stream.len()] {
            let mut lines = Lines::default();
            let found = stream.chunks(size).find_map(|chunk| lines.push(chunk));
            assert_eq!(found, Some(End::Confirmed), "{size}");
        }
    }

    #[test]
    fn a_cancelled_order_has_its_reason() {
        let end = Lines::default()
            .push(b"data: {\"status\":\"cancelled\",\"cancel_reason\":\"payment_declined\"}\n");
        assert_eq!(end, Some(End::Cancelled("payment_declined".to_owned())));
        assert_eq!(Lines::default().push(b"data: {\"status\":\"unknown\"}\n"), None);
    }
}
