-- What a product is found by is worked out in Rust from here on (the crate `words`), by the code that reads queries.
-- What is there stays until the service has made it anew, and is found meanwhile.
ALTER TABLE products.products ALTER COLUMN search DROP EXPRESSION;
-- For replicas of the release before, and for whoever adds products by hand: their words are made later.
ALTER TABLE products.products ALTER COLUMN search SET DEFAULT '';
-- The version of `words` that `search` was made by.
ALTER TABLE products.products ADD COLUMN words_version smallint NOT NULL DEFAULT 0;
CREATE INDEX products_without_words ON products.products (id) WHERE words_version < 1;

-- Texts that change without their words have to be read again.
CREATE FUNCTION products.forget_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.words_version := 0;
    RETURN NEW;
END $$;

CREATE TRIGGER products_texts_changed BEFORE UPDATE ON products.products
    FOR EACH ROW WHEN (
        (OLD.name, OLD.sku, OLD.description, OLD.attributes)
            IS DISTINCT FROM (NEW.name, NEW.sku, NEW.description, NEW.attributes)
        AND OLD.search = NEW.search AND NEW.words_version = OLD.words_version)
    EXECUTE FUNCTION products.forget_words();

-- They were stems; words take their place as products get their new ones.
DELETE FROM products.words;

-- Names as people sort them: letters with their accents beside those without, numbers by what they count.
CREATE COLLATION products.names (provider = icu, locale = 'und-u-kn-true');
CREATE INDEX products_by_name_of_people ON products.products (name COLLATE products.names, id)
    WHERE archived_at IS NULL;
CREATE INDEX products_by_category_name_of_people
    ON products.products (category, name COLLATE products.names, id) WHERE archived_at IS NULL;
DROP INDEX products.products_by_name;
DROP INDEX products.products_by_category_name;
ALTER INDEX products.products_by_name_of_people RENAME TO products_by_name;
ALTER INDEX products.products_by_category_name_of_people RENAME TO products_by_category_name;
