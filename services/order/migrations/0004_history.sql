-- What an order showed when its status changed, for those who read its events later.
ALTER TABLE orders.order_history
    ADD COLUMN payment_status text   NOT NULL DEFAULT 'pending',
    ADD COLUMN refunded       bigint NOT NULL DEFAULT 0;
