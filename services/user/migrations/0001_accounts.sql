CREATE TABLE users.accounts (
    id            uuid        PRIMARY KEY,
    email         text        NOT NULL,
    -- Lower-cased: what sign-in looks up, and what must be unique.
    email_key     text        NOT NULL CONSTRAINT accounts_email_key UNIQUE,
    name          text        NOT NULL,
    role          text        NOT NULL CHECK (role IN ('customer', 'staff', 'admin')),
    -- A PHC string: algorithm, parameters, salt and hash.
    password_hash text        NOT NULL,
    disabled      boolean     NOT NULL DEFAULT false,
    -- Grows with every change; events carry it.
    version       bigint      NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- A sign-in on one device: the family of refresh tokens that follow from it.
-- Revoking it is deleting it.
CREATE TABLE users.sessions (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES users.accounts ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);

CREATE INDEX sessions_account ON users.sessions (account_id);
CREATE INDEX sessions_expiry ON users.sessions (expires_at);

CREATE TABLE users.refresh_tokens (
    -- SHA-256 of the token, which itself is kept nowhere.
    token_hash     bytea       PRIMARY KEY,
    session_id     uuid        NOT NULL REFERENCES users.sessions ON DELETE CASCADE,
    created_at     timestamptz NOT NULL DEFAULT now(),
    spent_at       timestamptz,
    -- Makes the successor from the token: kept until the successor is spent.
    successor_salt bytea
);

CREATE INDEX refresh_tokens_session ON users.refresh_tokens (session_id);
CREATE INDEX refresh_tokens_spent ON users.refresh_tokens (created_at) WHERE spent_at IS NOT NULL;

CREATE TABLE users.signing_keys (
    kid         text        PRIMARY KEY,
    -- PKCS#8 v1 DER of an Ed25519 key.
    private_key bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Published from its creation on, signed with from here on.
    active_from timestamptz NOT NULL
);

-- By address and not by account, so that unknown addresses behave alike.
CREATE TABLE users.sign_in_failures (
    email_key      text        PRIMARY KEY,
    failures       integer     NOT NULL,
    last_failed_at timestamptz NOT NULL,
    blocked_until  timestamptz NOT NULL
);

CREATE INDEX sign_in_failures_last ON users.sign_in_failures (last_failed_at);

-- What a customer is to be told. No foreign key: an event may come after its
-- account has gone.
CREATE TABLE users.notifications (
    event_id   uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL,
    order_id   uuid        NOT NULL,
    kind       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX notifications_user ON users.notifications (user_id, created_at);
