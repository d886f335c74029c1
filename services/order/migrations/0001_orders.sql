-- What a cart shows while the product service is away: a copy, kept by product.updated.
CREATE TABLE orders.products (
    id        uuid    PRIMARY KEY,
    sku       text    NOT NULL,
    name      text    NOT NULL,
    price     bigint  NOT NULL,
    currency  text    NOT NULL,
    available integer NOT NULL,
    archived  boolean NOT NULL,
    version   bigint  NOT NULL
);

CREATE TABLE orders.cart_items (
    user_id    uuid        NOT NULL,
    product_id uuid        NOT NULL,
    quantity   integer     NOT NULL CHECK (quantity BETWEEN 1 AND 999),
    added_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, product_id)
);

-- One row per Idempotency-Key: who works on it, and the answer once there is one.
CREATE TABLE orders.claims (
    user_id       uuid        NOT NULL,
    operation     text        NOT NULL,
    key           text        NOT NULL,
    body_hash     bytea       NOT NULL,
    order_id      uuid        NOT NULL UNIQUE,
    -- [{"product_id", "quantity"}]: a cart is read once, when it is claimed.
    lines         jsonb       NOT NULL,
    owner         uuid        NOT NULL,
    lease_until   timestamptz NOT NULL,
    answer_status smallint,
    answer_body   text,
    -- No reservation can be left: none was made, or it was released.
    swept         boolean     NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, operation, key),
    CHECK ((answer_status IS NULL) = (answer_body IS NULL))
);

CREATE INDEX claims_unanswered ON orders.claims (lease_until) WHERE answer_status IS NULL AND NOT swept;
CREATE INDEX claims_created ON orders.claims (created_at);

CREATE TABLE orders.orders (
    id               uuid        PRIMARY KEY,
    user_id          uuid        NOT NULL,
    status           text        NOT NULL
        CHECK (status IN ('pending', 'confirmed', 'shipped', 'delivered', 'cancelled')),
    cancel_reason    text
        CHECK (cancel_reason IN ('payment_declined', 'payment_timeout', 'out_of_stock', 'customer', 'staff')),
    currency         text        NOT NULL,
    total            bigint      NOT NULL CHECK (total > 0),
    refunded         bigint      NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND total),
    payment_status   text        NOT NULL DEFAULT 'pending',
    payment_method   text        NOT NULL,
    shipping_address jsonb,
    tracking         jsonb,
    version          bigint      NOT NULL DEFAULT 1,
    placed_at        timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'cancelled') = (cancel_reason IS NOT NULL))
);

-- Ids are UUIDv7: their order is the order of time.
CREATE INDEX orders_of_user ON orders.orders (user_id, id DESC);
CREATE INDEX orders_of_user_by_status ON orders.orders (user_id, status, id DESC);

CREATE TABLE orders.order_items (
    order_id   uuid    NOT NULL REFERENCES orders.orders,
    position   integer NOT NULL,
    product_id uuid    NOT NULL,
    sku        text    NOT NULL,
    name       text    NOT NULL,
    unit_price bigint  NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, position)
);

CREATE TABLE orders.order_history (
    order_id uuid        NOT NULL REFERENCES orders.orders,
    version  bigint      NOT NULL,
    status   text        NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, version, status)
);

-- How far an order's money and stock are; see src/saga.rs.
CREATE TABLE orders.sagas (
    order_id       uuid        PRIMARY KEY REFERENCES orders.orders,
    phase          text        NOT NULL DEFAULT 'creating',
    intent_id      text        UNIQUE,
    -- A cancellation that waits for the provider's answer.
    pending_cancel text,
    -- Changes with every write: each attempt at the provider has its own key.
    version        bigint      NOT NULL DEFAULT 1,
    -- Who works on it: the epoch changes hands with each lease.
    epoch          bigint      NOT NULL DEFAULT 0,
    lease_until    timestamptz NOT NULL DEFAULT '-infinity',
    next_at        timestamptz NOT NULL DEFAULT now(),
    attempts       integer     NOT NULL DEFAULT 0,
    deadline_at    timestamptz NOT NULL,
    -- The trace that the order was placed in.
    traceparent    text
);

CREATE INDEX sagas_due ON orders.sagas (next_at) WHERE phase NOT IN ('confirmed', 'settled');

-- Written, and counted, before the provider is asked; keyed there by its id.
CREATE TABLE orders.refunds (
    id          uuid        PRIMARY KEY,
    order_id    uuid        NOT NULL REFERENCES orders.orders,
    amount      bigint      NOT NULL CHECK (amount > 0),
    reason      text        NOT NULL,
    status      text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX refunds_of_order ON orders.refunds (order_id);
