-- Devices that somebody has signed in from. They go with their account, with a new password, and 180 days after their last
-- sign-in.
CREATE TABLE users.devices (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES users.accounts ON DELETE CASCADE,
    -- SHA-256 of the token, which itself is kept nowhere.
    token_hash   bytea       NOT NULL CONSTRAINT devices_token UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX devices_account ON users.devices (account_id, last_used_at);
CREATE INDEX devices_age ON users.devices (last_used_at);
