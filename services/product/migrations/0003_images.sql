-- Uploaded images; their bytes are in the object store under `key`.
CREATE TABLE products.images (
    product_id  uuid        NOT NULL REFERENCES products.products,
    place       smallint    NOT NULL CHECK (place BETWEEN 0 AND 9),
    key         text        NOT NULL UNIQUE,
    media_type  text        NOT NULL,
    -- In bytes.
    size        bigint      NOT NULL,
    -- SHA-256 of the bytes.
    hash        bytea       NOT NULL,
    uploaded_at timestamptz NOT NULL,
    PRIMARY KEY (product_id, place)
);

-- Objects that nothing shows, to be deleted: uploads under way, unless they end
-- well before, and images that were replaced or taken away.
CREATE TABLE products.discarded_objects (
    key       text        PRIMARY KEY,
    delete_at timestamptz NOT NULL,
    -- A sweeper may have deleted it already: it is not to be shown any more.
    claimed   boolean     NOT NULL DEFAULT false
);

CREATE INDEX discarded_objects_due ON products.discarded_objects (delete_at);
