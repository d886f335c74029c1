//! Orders by their own rows.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{About, Difference, Options, Remedy};

#[derive(Clone, Debug, FromRow)]
pub(super) struct Order {
    pub id: Uuid,
    pub status: String,
    pub payment: String,
    /// Minor units, as are the other sums.
    pub total: i64,
    pub currency: String,
    pub refunded: i64,
    /// `open`, `won` or `lost`, once the customer has complained to their bank.
    pub dispute: Option<String>,
    pub version: i64,
    /// None: it has no saga.
    pub phase: Option<String>,
    pub intent: Option<String>,
    /// The saga has a call to make.
    pub working: bool,
    /// Seconds since something last changed.
    quiet: f64,
    /// What the lines come to.
    lines: i64,
    /// What the refunds that succeeded come to.
    returned: i64,
}

pub(super) async fn load(connection: &mut PgConnection, options: &Options) -> sqlx::Result<Vec<Order>> {
    sqlx::query_as(
        "SELECT o.id, o.status, o.payment_status AS payment, o.total, o.currency, o.refunded, o.dispute, o.version,
                s.phase, s.intent_id AS intent, COALESCE(s.busy OR s.news > s.news_read, false) AS working,
                EXTRACT(epoch FROM now() - GREATEST(o.updated_at, r.last))::float8 AS quiet,
                COALESCE(i.lines, 0) AS lines, COALESCE(r.returned, 0) AS returned
         FROM orders.orders o
         LEFT JOIN orders.sagas s ON s.order_id = o.id
         LEFT JOIN LATERAL (
             SELECT sum(unit_price * quantity)::bigint AS lines
             FROM orders.order_items i WHERE i.order_id = o.id) i ON true
         LEFT JOIN LATERAL (
             SELECT (sum(amount) FILTER (WHERE r.status = 'succeeded'))::bigint AS returned,
                    max(created_at) AS last
             FROM orders.refunds r WHERE r.order_id = o.id) r ON true
         WHERE $1::float8 IS NULL OR o.updated_at > now() - make_interval(secs => $1)
         ORDER BY o.id",
    )
    .bind(options.since_seconds())
    .fetch_all(connection)
    .await
}

/// Answers of 201 whose order is not there.
pub(super) async fn lost(connection: &mut PgConnection, options: &Options) -> sqlx::Result<Vec<Difference>> {
    let lost: Vec<Uuid> = sqlx::query_scalar(
        "SELECT c.order_id FROM orders.claims c LEFT JOIN orders.orders o ON o.id = c.order_id
         WHERE c.operation = 'POST /api/v1/orders' AND c.answer_status = 201 AND o.id IS NULL
           AND ($1::float8 IS NULL OR c.created_at > now() - make_interval(secs => $1))
         ORDER BY c.order_id",
    )
    .bind(options.since_seconds())
    .fetch_all(connection)
    .await?;
    let difference = |id| Difference {
        about: About::Order,
        id,
        what: "was promised to its customer (201), and is not there".to_owned(),
        remedy: Remedy::nothing("was the database restored from a backup or failed over with a loss?"),
    };
    Ok(lost.into_iter().map(difference).collect())
}

impl Order {
    pub(super) fn in_flight(&self, options: &Options) -> bool {
        self.working && self.quiet < options.grace.as_secs_f64()
    }

    /// The first thing about it that can't be right.
    pub(super) fn difference(&self, options: &Options) -> Option<Difference> {
        let reschedule = Remedy::Reschedule { order: self.id };
        let by_hand =
            || Remedy::nothing("compare it with its history and its refunds, and the order service's log");
        let Some(phase) = self.phase.as_deref() else {
            return Some(self.difference_is("has no saga".to_owned(), by_hand()));
        };
        if self.lines != self.total {
            let what = format!("its lines come to {} and its total says {}", self.lines, self.total);
            return Some(self.difference_is(what, by_hand()));
        }
        let returned = self.returned.min(self.total);
        if returned != self.refunded {
            let what = format!("its refunds come to {returned} and it says {}", self.refunded);
            return Some(self.difference_is(what, by_hand()));
        }
        let state = format!("is {}, its payment {}, its saga {phase}", self.status, self.payment);
        if self.working {
            let late = !self.in_flight(options);
            let what = format!("has not come to rest for {:.0} s: it {state}", self.quiet);
            return late.then(|| self.difference_is(what, reschedule));
        }
        let fits = match (self.status.as_str(), phase) {
            ("confirmed" | "partially_shipped" | "shipped" | "delivered", "confirmed") => {
                match self.payment.as_str() {
                    "captured" => self.refunded < self.total || self.total == 0,
                    "refunded" => self.refunded == self.total,
                    _ => false,
                }
            }
            // It goes back once the bank has decided.
            ("cancelled", "refunding") => self.dispute.as_deref() == Some("open"),
            ("cancelled", "settled") => match self.payment.as_str() {
                "refunded" => self.refunded == self.total,
                // The bank has given it back itself.
                "captured" => self.dispute.as_deref() == Some("lost"),
                payment => matches!(payment, "voided" | "declined"),
            },
            _ => false,
        };
        // A saga that rests at a phase with a call to make goes on when it is rescheduled.
        let remedy = if matches!(phase, "confirmed" | "settled") { by_hand() } else { reschedule };
        (!fits).then(|| self.difference_is(format!("{state}, and nobody works on it"), remedy))
    }

    fn difference_is(&self, what: String, remedy: Remedy) -> Difference {
        Difference { about: About::Order, id: self.id, what, remedy }
    }
}
