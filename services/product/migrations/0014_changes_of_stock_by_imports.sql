-- What lines of imports with an Idempotency-Key have done to stock, so that it is done once.
CREATE TABLE products.import_changes (
    user_id  uuid        NOT NULL,
    key      text        NOT NULL,
    line     bigint      NOT NULL,
    sku_key  text        NOT NULL,
    -- So many there are, or so many came (went).
    counted  boolean     NOT NULL,
    units    int         NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key, line)
);

CREATE INDEX import_changes_noted ON products.import_changes (noted_at);
