-- The part {part} of 2 of 100,000 products, with stock, ledger and past reservations. Drawn by
-- md5, so the same each time. Shelves differ in length and price, a product in eight words.
SET jit = off;
CREATE TEMP TABLE words AS SELECT
  '{harbour,coastal,northern,tidal,granite,amber,quiet,brass,alpine,woven,classic,compact,folding,heavy,light,vintage,striped,double,travel,winter}'::text[] AS kinds,
  '{jacket,sweater,cap,glove,backpack,holdall,tote,wallet,rope,shackle,anchor,fender,kettle,skillet,mug,plate,knife,chisel,hammer,saw,lantern,torch,bulb,candle,novel,atlas,logbook,notebook,coffee,tea,sardine,honey,blanket,towel,soap,pillow,tent,stove,compass,flask,helmet,paddle,boot,sock,scarf,belt,watch,telescope}'::text[] AS things,
  '{linen,wool,cotton,canvas,leather,steel,copper,oak,birch,cork,glass,enamel,rubber,nylon,silk,hemp,bamboo,felt,marble,iron}'::text[] AS materials,
  '{red,green,blue,black,white,grey,navy,olive,sand,rust,teal,cream}'::text[] AS colours,
  '{Skerry,Fathom,Lodestar,Marram,Northing,Halyard,Tern,Kelp,Shoal,Beacon,Drift,Pilot,Gannet,Sextant,Bollard,Cairn}'::text[] AS brands,
  string_to_array('keeps its shape after years of hard use on deck and in town because every seam is sewn twice by hand '
    'made in small batches from material that lasts and can be repaired by anyone with a needle packs flat into its own pocket '
    'dries overnight rinses clean in fresh water holds up to salt sun and frost carries a guarantee for ten years', ' ') AS filler;

INSERT INTO products.products
    (id, sku, slug, name, description, price, currency, category, attributes, images, created_at, updated_at, archived_at)
SELECT (lpad(to_hex(1700000000000 + n * 1000::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid,
       'G-' || lpad(n::text, 6, '0'),
       format('g-%s', n),
       initcap(format('%s %s %s', kinds[1 + a % 20], materials[1 + b % 20], things[1 + shelf])),
       format('A %s %s for %s days. It %s. %s', colours[1 + c % 12], things[1 + shelf], kinds[1 + d % 20],
              array_to_string(filler[1 + e % 20 : 25 + e % 35], ' '),
              CASE WHEN n % 5 = 0 THEN 'Waterproof, and tested so.'
                   WHEN n % 7 = 0 THEN format('Goes with the %s.', things[1 + b % 48])
                   ELSE 'Comes boxed.' END),
       -- A shelf has its price level, and a spread of 1 to 16 around it.
       (100 * (1 + shelf) * power(2, (d % 1000) / 250.0))::bigint,
       'EUR',
       format('g-%s-%s', 1 + shelf / 6, 1 + shelf % 6),
       jsonb_build_object('brand', brands[1 + e % 16], 'color', colours[1 + c % 12], 'material', materials[1 + b % 20],
                          -- A name nobody else would think of, in 20,000 ways.
                          'line', translate(substr(md5((n % 20000)::text), 1, 8), '0123456789', 'ghijklmnop')),
       '{}',
       -- Ten to a moment, so that ties are common.
       timestamptz '2025-01-01' + n / 10 * interval '5 min',
       timestamptz '2025-01-01' + n / 10 * interval '5 min',
       CASE WHEN n % 50 = 7 THEN now() END
FROM (SELECT n, h, ('x' || substr(h, 1, 6))::bit(24)::int AS a, ('x' || substr(h, 7, 6))::bit(24)::int AS b,
             ('x' || substr(h, 13, 6))::bit(24)::int AS c, ('x' || substr(h, 19, 6))::bit(24)::int AS d,
             ('x' || substr(h, 25, 6))::bit(24)::int AS e,
             -- The shelves are of unequal length.
             (48 * power(('x' || substr(h, 20, 6))::bit(24)::int / 16777216.0, 1.3))::int % 48 AS shelf
      FROM (SELECT n, md5(n::text) AS h FROM generate_series({part} * 50000 - 49999, {part} * 50000) n OFFSET 0) numbers OFFSET 0) dice, words;

CREATE TEMP TABLE numbered AS SELECT id, sku, name, price, substr(sku, 3)::int AS n FROM products.products
WHERE substr(sku, 3)::int BETWEEN {part} * 50000 - 49999 AND {part} * 50000;

INSERT INTO products.stock (product_id, on_hand, reserved)
SELECT id, CASE WHEN n % 12 = 0 THEN 0 ELSE 1 + n % 40 END, CASE WHEN n % 12 > 0 AND n % 29 = 0 THEN 1 ELSE 0 END
FROM numbered;

-- One product has a tenth of all entries.
INSERT INTO products.stock_ledger (id, product_id, delta, on_hand, kind)
SELECT id, CASE WHEN n % 10 = 0 THEN (SELECT id FROM numbered WHERE n % 50000 = 1) ELSE id END, 1, 1, 'initial'
FROM numbered;

INSERT INTO products.reservations (order_id, state, expires_at)
SELECT id, CASE WHEN n % 100 = 0 THEN 'reserved' ELSE 'committed' END, now() + interval '1 hour' FROM numbered;
INSERT INTO products.reservation_lines (order_id, product_id, quantity, sku, name, unit_price, currency)
SELECT id, id, 1, sku, name, price, 'EUR' FROM numbered;

DROP TABLE numbered, words;
