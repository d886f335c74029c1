//! Mails that staff send again: the newest about an order, a few times an hour.

use axum::http::StatusCode;
use service::Problem;
use service::db::Connection;
use uuid::Uuid;

use super::store::{self, Mail, Sent};

/// Mails of one order that are sent again within an hour.
const MOST_AN_HOUR: usize = 3;

/// A mail that is to be sent again.
pub(crate) struct Again {
    pub mail: Mail,
    /// False when it has not left yet: it leaves by itself.
    pub queued: bool,
}

/// Sends the newest mail about an order to its customer once more, in the present language and to the present
/// address. `None` when the account has gone. A mail that has not left yet is returned as it is. 409 `no_mail`
/// when nothing of it is kept, 429 `too_many_mails` after three within an hour.
pub(crate) async fn send_again(
    connection: &mut Connection,
    user: Uuid,
    order: Uuid,
) -> Result<Option<Again>, Problem> {
    // One after the other, so that the count stays true.
    if !store::lock_account(connection, user).await? {
        return Ok(None);
    }
    let sent = store::of_order(connection, user, order).await?;
    let newest = sent.iter().find(|one| one.again_of.is_none()).ok_or_else(no_mail)?;
    let same = |one: &&Sent| one.id == newest.id || one.again_of == Some(newest.id);
    if let Some(waiting) = sent.iter().filter(same).find(|one| one.waits) {
        let (event, created_at) = (waiting.kind.clone(), waiting.created_at);
        let mail = Mail { id: waiting.id, order_id: order, event, created_at };
        return Ok(Some(Again { mail, queued: false }));
    }
    let lately: Vec<f64> =
        sent.iter().filter(|one| one.again_of.is_some() && one.left > 0.0).map(|one| one.left).collect();
    if lately.len() >= MOST_AN_HOUR {
        return Err(too_many(lately.into_iter().fold(f64::INFINITY, f64::min)));
    }
    let mail = store::queue_again(connection, newest.id).await?.ok_or_else(no_mail)?;
    Ok(Some(Again { mail, queued: true }))
}

fn no_mail() -> Problem {
    let detail = "No mail to this customer about this order is kept: there was none in the last 90 days, or none was \
                  sent.";
    Problem::conflict("no_mail", detail)
}

/// `seconds` until the oldest of them is an hour old.
fn too_many(seconds: f64) -> Problem {
    #[expect(clippy::cast_possible_truncation, reason = "at most an hour")]
    #[expect(clippy::cast_sign_loss, reason = "at least one second")]
    let seconds = seconds.ceil().clamp(1.0, 3600.0) as u32;
    let detail = "Mails about this order were sent again three times within an hour; wait a little.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_mails", detail).with_retry_after(seconds)
}
