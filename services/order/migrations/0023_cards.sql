-- The card that was charged, as its owner knows it: its brand and its last four digits. Null of orders from before, where
-- the provider names none, and once the order forgets its customer.
ALTER TABLE orders.orders
    ADD COLUMN card_brand text,
    ADD COLUMN card_last4 text;

-- A release before this one forgets a customer's address, and knows of no card.
CREATE INDEX orders_with_a_card_left ON orders.orders (id) WHERE card_last4 IS NOT NULL AND shipping_address IS NULL;
