-- What two spellings of one SKU have in common (`product::sku::key`), where that is not merely the lower case. SKUs
-- were of ASCII letters, digits and '.', '_', '-' so far, for which it is: no row is written anew.
ALTER TABLE products.products ADD COLUMN sku_key text;

-- Products whose SKUs were told apart by case alone. The one that is in the shop longest keeps the common key. The
-- others get one of their own, which only their exact SKU leads to, until somebody gives them another SKU.
CREATE TABLE products.sku_collisions (
    product_id uuid PRIMARY KEY REFERENCES products.products,
    sku        text NOT NULL,
    -- Who has the common key.
    kept_by    uuid NOT NULL REFERENCES products.products
);

WITH ranked AS (
    SELECT id, sku, first_value(id) OVER same AS kept_by
    FROM products.products
    WINDOW same AS (PARTITION BY lower(sku COLLATE "C") ORDER BY archived_at IS NOT NULL, created_at, id)
)
INSERT INTO products.sku_collisions SELECT id, sku, kept_by FROM ranked WHERE id <> kept_by;

UPDATE products.products SET sku_key = E'\x1f' || sku
WHERE id IN (SELECT product_id FROM products.sku_collisions);

ALTER TABLE products.products DROP CONSTRAINT products_sku_key;
CREATE UNIQUE INDEX products_sku_key ON products.products (COALESCE(sku_key, lower(sku COLLATE "C")));
