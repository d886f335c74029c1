-- The language that an account's owner is written to in, ISO 639-1. Checked for new rows at once, and for those that are
-- there by the next migration.
ALTER TABLE users.accounts
    ADD COLUMN language text NOT NULL DEFAULT 'en',
    ADD CONSTRAINT accounts_language_check CHECK (language IN ('en', 'zh')) NOT VALID;
