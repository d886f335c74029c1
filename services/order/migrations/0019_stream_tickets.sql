-- A ticket lets one request follow one order, as who got it: an EventSource of a browser sends no headers of its own.
-- Of the ticket only its SHA-256 is kept.
CREATE TABLE orders.stream_tickets (
    hash bytea PRIMARY KEY,
    order_id uuid NOT NULL,
    user_id uuid NOT NULL,
    session_id uuid NOT NULL,
    role text NOT NULL,
    -- When the access token runs out that it was got with.
    good_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX stream_tickets_expire ON orders.stream_tickets (expires_at);
