-- Tokens that set a new password for who has forgotten the old one. They go with their account, and after an hour.
CREATE TABLE users.password_resets (
    -- SHA-256 of the token, which itself is kept only in the mail that is to carry it, until it leaves.
    token_hash bytea       PRIMARY KEY,
    account_id uuid        NOT NULL REFERENCES users.accounts ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Used, or followed by a newer one, or the password or the address was changed in another way.
    ended_at   timestamptz
);

CREATE INDEX password_resets_account ON users.password_resets (account_id, created_at);
CREATE INDEX password_resets_age ON users.password_resets (created_at);
-- Only the newest is good.
CREATE UNIQUE INDEX password_resets_open ON users.password_resets (account_id) WHERE ended_at IS NULL;

-- How often a client address has asked for a token since its hour began; gone an hour after that.
CREATE TABLE users.password_reset_callers (
    -- Of IPv6 the /64 network.
    caller text        PRIMARY KEY,
    asked  integer     NOT NULL,
    since  timestamptz NOT NULL
);

CREATE INDEX password_reset_callers_since ON users.password_reset_callers (since);

-- What is about an account and not about an order has none.
ALTER TABLE users.notifications ALTER COLUMN order_id DROP NOT NULL;
CREATE INDEX notifications_tokens ON users.notifications (status) WHERE order_id IS NULL AND payload IS NOT NULL;

-- Whoever changes an account ends its open tokens, a replica of a release before tokens too.
CREATE FUNCTION users.end_password_resets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users.password_resets SET ended_at = clock_timestamp()
    WHERE account_id = NEW.id AND ended_at IS NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER accounts_end_password_resets AFTER UPDATE ON users.accounts FOR EACH ROW
WHEN (OLD.password_hash <> NEW.password_hash OR OLD.email <> NEW.email OR OLD.disabled <> NEW.disabled)
EXECUTE FUNCTION users.end_password_resets();
