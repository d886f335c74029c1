-- A number that people can read out, as OrderNumber of order-core makes it: nine signs by chance, and one to check them.
CREATE FUNCTION orders.new_number() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    signs CONSTANT text := '23456789FHJKMPRTWXY';
    -- The first 48 bits of a version 4 UUID are all of them random.
    chance bigint := ('x' || left(translate(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint;
    number text := '';
    sum    int := 0;
BEGIN
    FOR place IN 1..9 LOOP
        number := number || substr(signs, (chance % 19)::int + 1, 1);
        sum := sum + place * (chance % 19)::int;
        chance := chance / 19;
    END LOOP;
    RETURN number || substr(signs, sum % 19 + 1, 1);
END $$;

-- The words that an order is found by: of the name on its parcel, and the number of the parcel.
CREATE FUNCTION orders.words(address jsonb, tracking jsonb) RETURNS tsvector LANGUAGE sql IMMUTABLE AS $$
    SELECT array_to_tsvector(COALESCE(array_agg(DISTINCT left(word, 100)), '{}'))
    FROM (SELECT regexp_split_to_table(lower(address ->> 'name'), '[^[:alnum:]]+') AS word
          UNION ALL SELECT lower(regexp_replace(tracking ->> 'tracking_number', '[^[:alnum:]]', '', 'g'))) AS words
    WHERE word <> ''
$$;

-- What somebody asks for by a text: words that begin with each of its words, or a parcel with all of it as its number.
CREATE FUNCTION orders.wanted(asked text) RETURNS tsquery LANGUAGE sql IMMUTABLE AS $$
    SELECT (string_agg(quote_literal(left(word, 100)) || ':*', ' & ') || ' | '
            || quote_literal(left(lower(regexp_replace(asked, '[^[:alnum:]]', '', 'g')), 100)))::tsquery
    FROM regexp_split_to_table(lower(asked), '[^[:alnum:]]+') AS word WHERE word <> ''
$$;

-- What staff find an order by. A table of its own: its indexes are written once for an order and not with each of its
-- changes, and are made here while it is empty. No foreign key, which would write to every order that is there already.
CREATE TABLE orders.directory (
    order_id uuid     PRIMARY KEY,
    number   text     NOT NULL CONSTRAINT directory_number_key UNIQUE,
    currency text     NOT NULL,
    total    bigint   NOT NULL,
    words    tsvector NOT NULL
);

CREATE INDEX directory_totals ON orders.directory (currency, total, order_id);
CREATE INDEX directory_words ON orders.directory USING gin (words);

-- Replicas of the release before place orders without this. A number that is taken makes another round.
CREATE FUNCTION orders.enter_into_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    FOR attempt IN 1..20 LOOP
        INSERT INTO orders.directory (order_id, number, currency, total, words)
        SELECT p.id, orders.new_number(), p.currency, p.total, orders.words(p.shipping_address, p.tracking)
        FROM placed p WHERE NOT EXISTS (SELECT FROM orders.directory d WHERE d.order_id = p.id)
        ON CONFLICT DO NOTHING;
        EXIT WHEN NOT EXISTS (
            SELECT FROM placed p WHERE NOT EXISTS (SELECT FROM orders.directory d WHERE d.order_id = p.id));
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER orders_placed AFTER INSERT ON orders.orders
    REFERENCING NEW TABLE AS placed FOR EACH STATEMENT EXECUTE FUNCTION orders.enter_into_directory();

-- What an order forgets cannot be found any more.
CREATE FUNCTION orders.keep_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orders.directory SET words = orders.words(NEW.shipping_address, NEW.tracking) WHERE order_id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER orders_changed AFTER UPDATE ON orders.orders FOR EACH ROW
    WHEN (OLD.tracking IS DISTINCT FROM NEW.tracking OR OLD.shipping_address IS DISTINCT FROM NEW.shipping_address)
    EXECUTE FUNCTION orders.keep_directory();
