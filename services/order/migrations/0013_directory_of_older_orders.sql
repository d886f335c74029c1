-- no-transaction
-- A thousand orders in each transaction, so that nobody waits for it and what is done stays done when it is cut off. Five
-- million take some minutes, in which the replicas of the release before go on. Orders themselves are only read.
DO $$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
    ids  uuid[];
BEGIN
    LOOP
        ids := ARRAY(SELECT id FROM orders.orders WHERE id > last ORDER BY id LIMIT 1000);
        EXIT WHEN ids = '{}';
        -- A number that is taken makes another round.
        FOR attempt IN 1..20 LOOP
            INSERT INTO orders.directory (order_id, number, currency, total, words)
            SELECT o.id, orders.new_number(), o.currency, o.total, orders.words(o.shipping_address, o.tracking)
            FROM orders.orders o
            WHERE o.id = ANY(ids) AND NOT EXISTS (SELECT FROM orders.directory d WHERE d.order_id = o.id)
            ON CONFLICT DO NOTHING;
            EXIT WHEN (SELECT count(*) FROM orders.directory WHERE order_id = ANY(ids)) = cardinality(ids);
        END LOOP;
        last := ids[cardinality(ids)];
        COMMIT;
    END LOOP;
END $$;
