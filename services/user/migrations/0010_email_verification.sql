-- Addresses that are not verified yet: of an account that is to be opened, or of one that is to get another address. They
-- go with their account, and after 24 hours.
CREATE TABLE users.email_verifications (
    -- SHA-256 of the token, which itself is kept only in the mail that is to carry it, until it leaves.
    token_hash    bytea       PRIMARY KEY,
    -- Who is to get the address; none where an account is to be opened with it.
    account_id    uuid        REFERENCES users.accounts ON DELETE CASCADE,
    email         text        NOT NULL,
    email_key     text        NOT NULL,
    -- Of the account that is to be opened.
    name          text,
    language      text        CHECK (language IN ('en', 'zh')),
    password_hash text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((account_id IS NULL) = (password_hash IS NOT NULL AND name IS NOT NULL AND language IS NOT NULL))
);

CREATE INDEX email_verifications_account ON users.email_verifications (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX email_verifications_key ON users.email_verifications (email_key, created_at) WHERE account_id IS NULL;
CREATE INDEX email_verifications_age ON users.email_verifications (created_at);

-- A letter goes to an address that an account may not have (yet, or any more). It has no `user_id`, so that a replica
-- of the release before, which knows no such kinds, leaves it alone; with `account_id` it goes with that account.
ALTER TABLE users.notifications
    ALTER COLUMN user_id DROP NOT NULL,
    ADD COLUMN account_id uuid,
    ADD COLUMN email text,
    ADD COLUMN name text,
    ADD COLUMN language text,
    ADD CONSTRAINT notifications_letters_account FOREIGN KEY (account_id) REFERENCES users.accounts
        ON DELETE CASCADE NOT VALID,
    ADD CONSTRAINT notifications_recipient
        CHECK ((user_id IS NULL) = (email IS NOT NULL AND name IS NOT NULL AND language IS NOT NULL)) NOT VALID;
CREATE INDEX notifications_letters ON users.notifications (account_id, created_at) WHERE user_id IS NULL;
