-- Copies {first} to {last} of each product of rows.sql. Older than all of those, with other words, on other shelves.
SET jit = off;
CREATE TEMP TABLE copies AS SELECT n,
  'abcdefghijklmnopqrstuvwxyz'::text AS plain,
  '0123456789'::text AS digits,
  substr('abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz', n * 2 + 2, 26) AS moved
FROM generate_series({first}, {last}) n;

INSERT INTO products.categories (slug, name, parent, position)
SELECT format('m-%s', n), format('More %s', n), NULL, 100 + n FROM copies;

INSERT INTO products.products
    (id, sku, slug, name, description, price, currency, category, attributes, images, created_at, updated_at, archived_at)
SELECT (n || substr(p.id::text, 2))::uuid,
       format('M%s-%s', n, translate(substr(p.sku, 3), digits, moved)),
       format('m%s-%s', n, substr(p.sku, 3)),
       translate(lower(p.name), plain, moved),
       translate(lower(p.description), plain, moved),
       p.price, p.currency, format('m-%s', n),
       (SELECT jsonb_object_agg(key, translate(lower(value), plain, moved)) FROM jsonb_each_text(p.attributes)),
       '{}', p.created_at - n * interval '2 years', p.updated_at - n * interval '2 years', p.archived_at
FROM products.products p, copies WHERE p.sku LIKE 'G-%';

INSERT INTO products.stock (product_id, on_hand, reserved)
SELECT p.id, s.on_hand, 0
FROM products.products p, copies, products.products o JOIN products.stock s ON s.product_id = o.id
WHERE p.slug = format('m%s-%s', n, substr(o.sku, 3)) AND o.sku LIKE 'G-%';
