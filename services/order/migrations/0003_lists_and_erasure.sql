-- The list of all orders of a status.
CREATE INDEX orders_by_status ON orders.orders (status, id DESC);

-- Where the parcel goes, as it was when the key was claimed: an address book may change meanwhile.
ALTER TABLE orders.claims ADD COLUMN address jsonb;

-- Users who are to be forgotten. A row stays: an order may be on its way in when they are.
CREATE TABLE orders.deleted_users (
    user_id uuid        PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX deleted_users_by_time ON orders.deleted_users (at);
