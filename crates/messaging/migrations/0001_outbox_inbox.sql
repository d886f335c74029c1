-- Applied in every service's own schema, through its search_path.

CREATE TABLE outbox (
    id                uuid        PRIMARY KEY,
    type              text        NOT NULL,
    aggregate_id      uuid        NOT NULL,
    aggregate_version bigint      NOT NULL,
    payload           bytea       NOT NULL,
    traceparent       text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    -- A relay works on the row until then; another may take it over afterwards.
    claimed_until     timestamptz NOT NULL DEFAULT '-infinity',
    published_at      timestamptz
);

CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE inbox (
    consumer   text        NOT NULL,
    event_id   uuid        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

CREATE INDEX inbox_applied ON inbox (applied_at);
