-- A mail that staff had sent again is a row of its own, with an id of its own: under the Message-ID of the first one a
-- mail server may take it for the same. The id is that of the event's row. For this a row keeps its `payload` once the
-- mail has left, until it goes itself: with its account, or after 90 days.
ALTER TABLE users.notifications ADD COLUMN again_of uuid;
