ALTER TABLE orders.orders VALIDATE CONSTRAINT orders_total_check;
