-- What the cart's user was last shown: nobody pays another price without knowing. Nothing is known of older lines.
ALTER TABLE orders.cart_items
    ADD COLUMN currency    text,
    ADD COLUMN shown_price bigint;
