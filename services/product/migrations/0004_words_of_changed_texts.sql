-- Most updates leave a product's words as they are: its price, its place or its
-- images change, or its stock is told of. Only new texts are taken apart.
-- By EXCEPT and not by a join of the two, whose plan is kept from the first
-- update on, and would compare each row with each one when that was a small one.
CREATE FUNCTION products.learn_changed_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products.words
    SELECT DISTINCT lexeme
    FROM (SELECT search FROM written EXCEPT SELECT search FROM overwritten) AS changed,
         unnest(tsvector_to_array(ts_filter(changed.search, '{a,b}'))) AS lexeme
    WHERE lexeme ~ '^[[:alpha:]]{3,40}$'
      AND NOT EXISTS (SELECT FROM products.words known WHERE known.word = lexeme);
    RETURN NULL;
END $$;

DROP TRIGGER products_updated ON products.products;
CREATE TRIGGER products_updated AFTER UPDATE ON products.products
    REFERENCING OLD TABLE AS overwritten NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION products.learn_changed_words();
