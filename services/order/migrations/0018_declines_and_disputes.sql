-- Why a card was declined: DeclineReason of order-core. Null of those that were declined before this was kept.
ALTER TABLE orders.orders ADD COLUMN decline_reason text;

-- What has become of a dispute about the payment: Dispute of order-core.
ALTER TABLE orders.orders ADD COLUMN dispute text;
