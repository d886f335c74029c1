-- A key is kept for a day from its answer, which may come long after the claim. None: not answered yet, or by an
-- earlier version.
ALTER TABLE orders.claims ADD COLUMN answered_at timestamptz;
