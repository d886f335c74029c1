CREATE TABLE products.categories (
    slug     text PRIMARY KEY,
    name     text NOT NULL,
    parent   text REFERENCES products.categories,
    -- Its place among its siblings.
    position int  NOT NULL
);

CREATE TABLE products.products (
    id          uuid        PRIMARY KEY,
    sku         text        NOT NULL CONSTRAINT products_sku_key UNIQUE,
    slug        text        NOT NULL CONSTRAINT products_slug_key UNIQUE,
    name        text        NOT NULL,
    description text        NOT NULL,
    -- Minor units of `currency` (ISO 4217).
    price       bigint      NOT NULL CHECK (price >= 0),
    currency    text        NOT NULL,
    category    text        NOT NULL CONSTRAINT products_category_fkey REFERENCES products.categories,
    attributes  jsonb       NOT NULL,
    images      text[]      NOT NULL,
    version     bigint      NOT NULL DEFAULT 1,
    archived_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    search      tsvector    NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english', name), 'A')
        || setweight(to_tsvector('english', sku), 'A')
        || setweight(jsonb_to_tsvector('english', attributes, '["string"]'), 'B')
        || setweight(to_tsvector('english', description), 'C')) STORED
);

-- One for each sort, the id making equal values distinct.
CREATE INDEX products_by_age ON products.products (created_at, id) WHERE archived_at IS NULL;
CREATE INDEX products_by_price ON products.products (price, id) WHERE archived_at IS NULL;
CREATE INDEX products_by_name ON products.products ((lower(name) COLLATE "C"), id) WHERE archived_at IS NULL;
CREATE INDEX products_by_category ON products.products (category) WHERE archived_at IS NULL;
CREATE INDEX products_search ON products.products USING gin (search);
CREATE INDEX products_name_trigrams ON products.products USING gin (name extensions.gin_trgm_ops);

-- The hottest rows of the shop: room on the page for updates in place (HOT).
CREATE TABLE products.stock (
    product_id uuid PRIMARY KEY REFERENCES products.products,
    on_hand    int  NOT NULL CONSTRAINT stock_on_hand CHECK (on_hand >= 0),
    reserved   int  NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    CONSTRAINT stock_reserved_is_on_hand CHECK (reserved <= on_hand)
) WITH (fillfactor = 50);

CREATE TABLE products.reservations (
    order_id   uuid        PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('reserved', 'committed', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX reservations_open ON products.reservations (expires_at) WHERE state = 'reserved';

-- What was promised, at the price of that moment. Without foreign keys, which
-- would cost the hot path a look-up per row: lines are written only together
-- with their reservation, for stock rows that the transaction holds locked.
CREATE TABLE products.reservation_lines (
    order_id   uuid   NOT NULL,
    product_id uuid   NOT NULL,
    quantity   int    NOT NULL CHECK (quantity > 0),
    restocked  int    NOT NULL DEFAULT 0,
    sku        text   NOT NULL,
    name       text   NOT NULL,
    unit_price bigint NOT NULL,
    currency   text   NOT NULL,
    PRIMARY KEY (order_id, product_id),
    CHECK (restocked BETWEEN 0 AND quantity)
);

-- Every change of stock.on_hand: a product's deltas add up to it.
CREATE TABLE products.stock_ledger (
    product_id uuid        NOT NULL,
    -- Drawn under the stock row's lock, so a product's entries are in their true order.
    seq        bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    id         uuid        NOT NULL,
    delta      int         NOT NULL,
    -- on_hand after this entry.
    on_hand    int         NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('initial', 'adjustment', 'sale', 'restock')),
    reason     text,
    order_id   uuid,
    -- The user who made an adjustment.
    actor      uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, seq)
);

-- Data sets that were loaded, so that none is loaded twice.
CREATE TABLE products.loaded (
    name text        PRIMARY KEY,
    at   timestamptz NOT NULL DEFAULT now()
);
