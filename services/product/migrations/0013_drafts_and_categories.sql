-- Products that staff are at work on: not in the shop (`archived_at`), and not deleted.
ALTER TABLE products.products
    ADD COLUMN draft boolean NOT NULL DEFAULT false,
    -- Of a deleted product: it was a draft, and is one again when it is restored.
    ADD COLUMN deleted_draft boolean NOT NULL DEFAULT false;
ALTER TABLE products.products
    ADD CONSTRAINT products_draft_is_not_in_the_shop CHECK (NOT draft OR archived_at IS NOT NULL);
CREATE INDEX products_not_in_the_shop ON products.products (draft, id) WHERE archived_at IS NOT NULL;

-- Who is deleted leaves the SKU to others.
DROP INDEX products.products_sku_key;
CREATE UNIQUE INDEX products_sku_key ON products.products (COALESCE(sku_key, lower(sku COLLATE "C")))
    WHERE archived_at IS NULL OR draft;

-- Of all products of a category, also those that are not in the shop.
CREATE INDEX products_of_category ON products.products (category);

-- Slugs that categories had before.
CREATE TABLE products.category_redirects (
    slug     text PRIMARY KEY,
    category text NOT NULL REFERENCES products.categories ON DELETE CASCADE
);
CREATE INDEX category_redirects_by_category ON products.category_redirects (category);
