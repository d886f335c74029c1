-- The card that was charged, as its owner knows it: its brand and its last four digits. Null of orders from before, where
-- the provider names none, and once the order forgets its customer.
ALTER TABLE orders.orders
    ADD COLUMN card_brand text,
    ADD COLUMN card_last4 text;
