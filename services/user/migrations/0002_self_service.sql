-- The browser and system that signed in, such as `Firefox on Linux`.
ALTER TABLE users.sessions ADD COLUMN user_agent text;

-- Lists are newest first, by id.
DROP INDEX users.sessions_account;
CREATE INDEX sessions_account ON users.sessions (account_id, id);

CREATE TABLE users.addresses (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL REFERENCES users.accounts ON DELETE CASCADE,
    name        text        NOT NULL,
    line1       text        NOT NULL,
    line2       text,
    city        text        NOT NULL,
    region      text,
    postal_code text        NOT NULL,
    -- ISO 3166-1 alpha-2.
    country     text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX addresses_account ON users.addresses (account_id, id);

-- Who must not vanish altogether.
CREATE INDEX accounts_admins ON users.accounts (id) WHERE role = 'admin' AND NOT disabled;
