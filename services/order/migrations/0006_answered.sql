-- A key is kept for a day from its answer, which may come long after the claim. None: not answered yet, or by an
-- earlier version.
ALTER TABLE orders.claims ADD COLUMN answered_at timestamptz;

CREATE INDEX claims_answered ON orders.claims (answered_at) WHERE answered_at IS NOT NULL;
