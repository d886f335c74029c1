-- Additive: replicas of the version before go on beside it.
--
-- For erasing an account, whose mails go with it: the foreign key looks them up by `account_id` alone. Few rows have one,
-- so that the index takes no longer than reading the table once.
CREATE INDEX notifications_account ON users.notifications (account_id) WHERE account_id IS NOT NULL;
