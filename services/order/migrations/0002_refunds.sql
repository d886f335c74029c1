-- Refunds by staff and at the provider, next to those of cancelled orders.
ALTER TABLE orders.refunds
    DROP CONSTRAINT refunds_status_check,
    ADD CONSTRAINT refunds_status_check CHECK (status IN ('pending', 'succeeded', 'failed')),
    ADD COLUMN made_by text NOT NULL DEFAULT 'cancel' CHECK (made_by IN ('staff', 'cancel', 'provider')),
    -- The provider's id, once it has one: what was made there by hand is known by it.
    ADD COLUMN provider_id text UNIQUE,
    -- [{"product_id", "quantity"}]: units that go back into stock when it succeeds.
    ADD COLUMN restock jsonb NOT NULL DEFAULT '[]',
    -- order.refunded was sent: the units are back in stock even if the money comes back.
    ADD COLUMN told boolean NOT NULL DEFAULT false,
    -- Who of the staff asked for it.
    ADD COLUMN actor uuid;

ALTER TABLE orders.sagas
    -- There is a call to make.
    ADD COLUMN busy boolean NOT NULL DEFAULT true,
    -- How often something was said about its intent, and how much of that was followed up.
    ADD COLUMN news bigint NOT NULL DEFAULT 0,
    ADD COLUMN news_read bigint NOT NULL DEFAULT 0,
    -- The provider's names of what is not followed up yet.
    ADD COLUMN news_of   text[] NOT NULL DEFAULT '{}';

UPDATE orders.sagas SET busy = false WHERE phase IN ('confirmed', 'settled');

DROP INDEX orders.sagas_due;
DROP INDEX orders.refunds_of_order;
CREATE INDEX refunds_of_order ON orders.refunds (order_id, id);

CREATE INDEX sagas_due ON orders.sagas (next_at) WHERE busy OR news > news_read;

-- Whether the provider's messages say no more than the payment's status does: most tell us what we
-- have just done ourselves, and need no call back.
CREATE FUNCTION orders.is_known(payment text, kinds text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT kinds <@ CASE payment
        WHEN 'captured' THEN ARRAY['payment_intent.amount_capturable_updated', 'payment_intent.succeeded']
        WHEN 'refunded' THEN ARRAY['payment_intent.amount_capturable_updated', 'payment_intent.succeeded']
        WHEN 'voided'   THEN ARRAY['payment_intent.canceled']
        WHEN 'declined' THEN ARRAY['payment_intent.payment_failed', 'payment_intent.canceled']
        ELSE ARRAY[]::text[]
    END
$$;
