-- Additive: replicas of the version before go on beside it.

-- The highest event id (UUIDv7: in order of time) of which an inbox row was deleted. Whether an event up to it was
-- applied is not known any more.
CREATE TABLE inbox_pruned (
    consumer text PRIMARY KEY,
    up_to    uuid NOT NULL
);

-- What the version before has deleted was applied before all that is left, and more than 30 days ago.
INSERT INTO inbox_pruned (consumer, up_to)
SELECT consumer,
       (lpad(to_hex((EXTRACT(epoch FROM LEAST(min(applied_at), now() - interval '30 days')) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid
FROM inbox GROUP BY consumer;
