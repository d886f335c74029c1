-- What a customer has to do before an order can be paid, as JSON; see NextAction of order-core.
ALTER TABLE orders.orders ADD COLUMN payment_action jsonb;

-- Orders may cost nothing. Checked for new rows at once, and for those that are there by the next migration.
ALTER TABLE orders.orders
    DROP CONSTRAINT orders_total_check,
    ADD CONSTRAINT orders_total_check CHECK (total >= 0) NOT VALID;
