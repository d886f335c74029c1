-- One for each sort within a category, whose products may all lie at one end of
-- the shop's: every yacht is dearer than every sock.
CREATE INDEX products_by_category_age ON products.products (category, created_at, id) WHERE archived_at IS NULL;
CREATE INDEX products_by_category_price ON products.products (category, price, id) WHERE archived_at IS NULL;
CREATE INDEX products_by_category_name ON products.products (category, (lower(name) COLLATE "C"), id)
    WHERE archived_at IS NULL;
DROP INDEX products.products_by_category;

-- A search ranks by where it found its words: in names (weight A), in
-- attributes (B) or in descriptions (C). Indexes of their own give the planner
-- the share of products that each finds.
-- Short pending lists (kB), as every search reads them from end to end.
CREATE INDEX products_search_names ON products.products USING gin (ts_filter(search, '{a}'))
    WITH (gin_pending_list_limit = 512);
CREATE INDEX products_search_facts ON products.products USING gin (ts_filter(search, '{a,b}'))
    WITH (gin_pending_list_limit = 512);
ALTER INDEX products.products_search SET (gin_pending_list_limit = 512);

-- Products of which none is available. A column of products would make orders
-- wait for whoever edits a product, and an index on stock would end its updates in place (HOT).
CREATE TABLE products.sold_out (product_id uuid PRIMARY KEY);

CREATE FUNCTION products.note_sold_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.on_hand > NEW.reserved THEN
        DELETE FROM products.sold_out WHERE product_id = NEW.product_id;
    ELSE
        INSERT INTO products.sold_out VALUES (NEW.product_id) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER stock_opened AFTER INSERT ON products.stock
    FOR EACH ROW WHEN (NEW.on_hand <= NEW.reserved) EXECUTE FUNCTION products.note_sold_out();
CREATE TRIGGER stock_crossed_zero AFTER UPDATE ON products.stock
    FOR EACH ROW WHEN ((OLD.on_hand > OLD.reserved) <> (NEW.on_hand > NEW.reserved))
    EXECUTE FUNCTION products.note_sold_out();

INSERT INTO products.sold_out SELECT product_id FROM products.stock WHERE on_hand <= reserved;

-- The words that a misspelt search may have meant: stems of names and attributes.
-- Not unique, on purpose: writers that add the same word would wait for each
-- other, in a circle now and then. A word that is in it twice does no harm.
CREATE TABLE products.words (word text NOT NULL);
CREATE INDEX words_by_word ON products.words (word);
CREATE INDEX words_by_trigram ON products.words USING gin (word extensions.gin_trgm_ops);
DROP INDEX products.products_name_trigrams;

CREATE FUNCTION products.learn_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products.words
    SELECT DISTINCT lexeme
    FROM written, unnest(tsvector_to_array(ts_filter(written.search, '{a,b}'))) AS lexeme
    WHERE lexeme ~ '^[[:alpha:]]{3,40}$'
      AND NOT EXISTS (SELECT FROM products.words known WHERE known.word = lexeme);
    RETURN NULL;
END $$;

CREATE TRIGGER products_inserted AFTER INSERT ON products.products
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION products.learn_words();
CREATE TRIGGER products_updated AFTER UPDATE ON products.products
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION products.learn_words();

INSERT INTO products.words
SELECT DISTINCT lexeme FROM products.products, unnest(tsvector_to_array(ts_filter(search, '{a,b}'))) AS lexeme
WHERE lexeme ~ '^[[:alpha:]]{3,40}$';
