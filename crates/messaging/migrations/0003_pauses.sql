-- Additive, and a transaction of its own, as nobody can write events meanwhile.
--
-- How often the broker did not take the event. The pause before it is tried again is in claimed_until, which relays
-- of every version respect.
ALTER TABLE outbox ADD COLUMN attempts integer NOT NULL DEFAULT 0;
