//! Whether a message comes from a service that may send it.
//!
//! The sender chooses the `type`. The broker vouches for the exchange and the routing key, as an account may
//! only use keys of its own name. It vouches for `user_id`, too, which it compares with the account of the
//! connection. <https://www.rabbitmq.com/docs/validated-user-id>

use lapin::message::Delivery;

use crate::topology::Topology;

/// Why a message is not trusted, as text for its dead letter and as a label of the metric.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Distrust {
    pub(super) error: String,
    pub(super) reason: &'static str,
}

/// Every reason that there is.
pub(super) const REASONS: [&str; 3] = ["routing_key", "publisher", "no_publisher"];

/// The service that may publish events of this type: the one that it begins with.
fn publisher(kind: &str) -> &str {
    kind.split('.').next().unwrap_or_default()
}

impl Topology {
    pub(super) fn distrust(&self, delivery: &Delivery, kind: &str) -> Option<Distrust> {
        let account = delivery.properties.user_id().as_ref().map(|account| account.as_str());
        self.distrusts(delivery.exchange.as_str(), delivery.routing_key.as_str(), account, kind)
    }

    fn distrusts(&self, exchange: &str, key: &str, account: Option<&str>, kind: &str) -> Option<Distrust> {
        let as_event = exchange == self.exchange();
        if as_event && key != kind {
            let error = format!("sent with the routing key {key:?}, which is not its type");
            return Some(Distrust { error, reason: "routing_key" });
        }
        let may = match account {
            None if self.require_publisher => {
                let error = "names no publisher".to_owned();
                return Some(Distrust { error, reason: "no_publisher" });
            }
            None => true,
            // A retry, or services that share an account.
            Some(account) if account == self.account() => true,
            Some(account) if as_event => account == publisher(kind),
            // Replayed from the dead letters, by an administrator.
            Some(account) => !self.is_service(account),
        };
        (!may).then(|| Distrust {
            error: format!("{} may not send it", account.unwrap_or_default()),
            reason: "publisher",
        })
    }

    fn is_service(&self, account: &str) -> bool {
        self.subscriptions.iter().any(|(consumer, kinds)| {
            *consumer == account || kinds.iter().any(|kind| publisher(kind) == account)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "x.events";

    fn order(require: bool) -> Topology {
        let subscriptions = &[("order", &["product.updated.v1", "user.deleted.v1"] as &[_])];
        Topology::new("amqp://order:secret@localhost", "x", subscriptions).require_publisher(require)
    }

    #[test]
    fn a_type_is_believed_under_its_own_routing_key_only() {
        let forged = |key| order(false).distrusts(EVENTS, key, Some("product"), "user.deleted.v1");
        assert_eq!(forged("product.updated.v1").unwrap().reason, "routing_key");
        // If the broker allowed that.
        let refused = forged("user.deleted.v1").unwrap();
        assert_eq!((refused.reason, refused.error.as_str()), ("publisher", "product may not send it"));
        let reason = order(true).distrusts(EVENTS, "user.deleted.v1", Some("user"), "user.deleted.v1");
        assert_eq!(reason, None);
    }

    #[test]
    fn what_names_no_publisher_is_believed_by_its_key_until_the_name_is_required() {
        let unnamed = |require, key| order(require).distrusts(EVENTS, key, None, "user.deleted.v1");
        assert_eq!(unnamed(false, "user.deleted.v1"), None);
        assert_eq!(unnamed(false, "product.updated.v1").unwrap().reason, "routing_key");
        assert_eq!(unnamed(true, "user.deleted.v1").unwrap().reason, "no_publisher");
    }

    #[test]
    fn into_the_queue_itself_go_retries_and_what_an_administrator_gives_back() {
        let direct =
            |exchange, account| order(true).distrusts(exchange, "x.order", account, "user.deleted.v1");
        assert_eq!(direct("x.order.aside", Some("order")), None);
        assert_eq!(direct("", Some("admin")), None);
        for another in ["product", "user"] {
            assert_eq!(direct("", Some(another)).unwrap().reason, "publisher");
        }
        assert_eq!(direct("", None).unwrap().reason, "no_publisher");
    }

    #[test]
    fn services_that_share_an_account_believe_each_other() {
        let order = Topology::new("amqp://shop:secret@localhost", "x", &[]).require_publisher(true);
        assert_eq!(order.distrusts(EVENTS, "user.deleted.v1", Some("shop"), "user.deleted.v1"), None);
    }
}
