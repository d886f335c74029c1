ALTER TABLE orders.orders VALIDATE CONSTRAINT orders_status_check;
