-- A search is respelt by the words of names and attributes, so a new
-- description is not taken apart either.
CREATE OR REPLACE FUNCTION products.learn_changed_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products.words
    SELECT DISTINCT lexeme
    FROM (SELECT ts_filter(search, '{a,b}') AS facts FROM written
          EXCEPT SELECT ts_filter(search, '{a,b}') FROM overwritten) AS changed,
         unnest(tsvector_to_array(changed.facts)) AS lexeme
    WHERE lexeme ~ '^[[:alpha:]]{3,40}$'
      AND NOT EXISTS (SELECT FROM products.words known WHERE known.word = lexeme);
    RETURN NULL;
END $$;
