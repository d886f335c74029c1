-- A sweeper has taken the claim to release its reservation, and may do so at any time, however late.
ALTER TABLE orders.claims ADD COLUMN sweeping boolean NOT NULL DEFAULT false;
