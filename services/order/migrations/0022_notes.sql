-- What staff note of an order, for each other. It goes with the order's address.
CREATE TABLE orders.notes (
    id         uuid        PRIMARY KEY,
    order_id   uuid        NOT NULL,
    author     uuid        NOT NULL,
    text       text        NOT NULL,
    -- The Idempotency-Key that it came with, if any.
    key        text,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (order_id, author, key)
);

CREATE INDEX notes_of_order ON orders.notes (order_id, id);

CREATE OR REPLACE FUNCTION orders.keep_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.shipping_address IS NULL THEN
        UPDATE orders.parcels SET carrier = NULL, tracking_number = NULL, former = '[]'
        WHERE order_id = NEW.id AND (carrier IS NOT NULL OR former <> '[]');
        DELETE FROM orders.notes WHERE order_id = NEW.id;
    END IF;
    PERFORM orders.refresh_words(NEW.id);
    RETURN NULL;
END $$;
