-- Additive: replicas of the version before go on beside it.
--
-- How long the order has waited for its customer, who had to prove something to their bank; and since when it does now.
ALTER TABLE orders.sagas
    ADD COLUMN waited        interval NOT NULL DEFAULT '0',
    ADD COLUMN waiting_since timestamptz;
