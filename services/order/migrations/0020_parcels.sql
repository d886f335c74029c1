-- What left for a customer, and how. An order that was shipped before has none: all of it left at once, as its tracking says.
CREATE TABLE orders.parcels (
    id              uuid        PRIMARY KEY,
    order_id        uuid        NOT NULL,
    -- Null with the number: fetched in the shop, or forgotten.
    carrier         text,
    tracking_number text,
    collected       boolean     NOT NULL DEFAULT false,
    -- [{"product_id", "quantity"}]
    lines           jsonb       NOT NULL,
    -- What it was said to be before, oldest first: [{"carrier", "tracking_number", "until", "actor"}]
    former          jsonb       NOT NULL DEFAULT '[]',
    -- Who of the staff reported it.
    actor           uuid,
    -- The Idempotency-Key of the report, if it had one.
    key             text,
    sent_at         timestamptz NOT NULL DEFAULT now(),
    CHECK ((carrier IS NULL) = (tracking_number IS NULL))
);

-- Whether what a refund puts back into stock had left. What had not need not leave any more.
ALTER TABLE orders.refunds ADD COLUMN returned boolean NOT NULL DEFAULT false;

CREATE INDEX parcels_of_order ON orders.parcels (order_id, id);

-- A part of an order may leave before the rest. For new rows at once, for those that are there by the next migration.
ALTER TABLE orders.orders
    DROP CONSTRAINT orders_status_check,
    ADD CONSTRAINT orders_status_check CHECK
        (status IN ('pending', 'confirmed', 'partially_shipped', 'shipped', 'delivered', 'cancelled')) NOT VALID;

-- The words of the name on the parcels, and of the numbers of all of them.
CREATE FUNCTION orders.refresh_words(changed uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE orders.directory d
    SET words = orders.words(o.shipping_address, o.tracking) || COALESCE(
        (SELECT array_to_tsvector(array_agg(DISTINCT left(word, 100)))
         FROM (SELECT lower(regexp_replace(p.tracking_number, '[^[:alnum:]]', '', 'g')) AS word
               FROM orders.parcels p WHERE p.order_id = changed) AS numbers
         WHERE word <> ''), '')
    FROM orders.orders o WHERE o.id = changed AND d.order_id = changed
$$;

-- An order that forgets its parcel forgets all of them.
CREATE OR REPLACE FUNCTION orders.keep_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.shipping_address IS NULL THEN
        UPDATE orders.parcels SET carrier = NULL, tracking_number = NULL, former = '[]'
        WHERE order_id = NEW.id AND (carrier IS NOT NULL OR former <> '[]');
    END IF;
    PERFORM orders.refresh_words(NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION orders.keep_directory_of_parcel() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM orders.refresh_words(NEW.order_id);
    RETURN NULL;
END $$;

CREATE TRIGGER parcels_written AFTER INSERT OR UPDATE OF tracking_number ON orders.parcels FOR EACH ROW
    EXECUTE FUNCTION orders.keep_directory_of_parcel();
