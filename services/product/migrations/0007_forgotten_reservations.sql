-- The least UUIDv7 of a moment: ids that were made before it are smaller.
CREATE FUNCTION products.first_id(at timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- Ended reservations of orders whose ids are up to this may have been deleted, with their lines. One row.
CREATE TABLE products.forgotten_reservations (
    up_to uuid NOT NULL
);

INSERT INTO products.forgotten_reservations VALUES ('00000000-0000-0000-0000-000000000000');
