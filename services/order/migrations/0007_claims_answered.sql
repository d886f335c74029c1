-- A transaction of its own: the one before locks out all who place an order.
CREATE INDEX claims_answered ON orders.claims (answered_at) WHERE answered_at IS NOT NULL;
