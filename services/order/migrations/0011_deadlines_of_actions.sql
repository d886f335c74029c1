-- Until when a customer may prove who they are, within the life of the reservation. Older orders have none of their own.
ALTER TABLE orders.sagas ADD COLUMN action_deadline_at timestamptz;
