-- How far each import is that was given an id. Any replica can say it, whichever runs the import.
CREATE TABLE products.imports (
    id         uuid        PRIMARY KEY,
    -- Differs each time that a file is sent with this id: of two, the one that began last writes here.
    run        uuid        NOT NULL,
    status     text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'failed')),
    lines      bigint      NOT NULL DEFAULT 0,
    bytes      bigint      NOT NULL DEFAULT 0,
    created    bigint      NOT NULL DEFAULT 0,
    updated    bigint      NOT NULL DEFAULT 0,
    unchanged  bigint      NOT NULL DEFAULT 0,
    failed     bigint      NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX imports_started ON products.imports (started_at);
