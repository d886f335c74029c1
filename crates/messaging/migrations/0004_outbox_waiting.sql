-- The relay takes events type by type: those that wait for one queue are not in the way of the rest.
CREATE INDEX outbox_waiting ON outbox (type, id) WHERE published_at IS NULL;
