-- Additive: replicas of the version before go on beside it.
--
-- That changes of carts were made which came with an Idempotency-Key, for whoever repeats one.
CREATE TABLE orders.idempotency_keys (
    user_id     uuid        NOT NULL,
    operation   text        NOT NULL,
    key         text        NOT NULL,
    -- SHA-256 of what was asked for.
    body_hash   bytea       NOT NULL,
    status      smallint    NOT NULL,
    -- [[name, value]]
    headers     jsonb       NOT NULL,
    body        text        NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, operation, key)
);

CREATE INDEX idempotency_keys_answered ON orders.idempotency_keys (answered_at);
