-- An erased account takes its notifications along, and gets no new ones.
DELETE FROM users.notifications WHERE user_id NOT IN (SELECT id FROM users.accounts);
ALTER TABLE users.notifications
    ADD CONSTRAINT notifications_account FOREIGN KEY (user_id) REFERENCES users.accounts ON DELETE CASCADE,
    -- The event's body, from which the mail is made; gone once the mail is.
    ADD COLUMN payload bytea,
    -- recorded: no mail is to be sent. failed: given up, `error` says why.
    ADD COLUMN status text NOT NULL DEFAULT 'recorded'
        CHECK (status IN ('recorded', 'pending', 'sent', 'failed')),
    -- When to try next; a claim moves it on, which makes it a lease too.
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    -- Of the attempts, those that the mail server turned down for good.
    ADD COLUMN refusals integer NOT NULL DEFAULT 0,
    ADD COLUMN settled_at timestamptz,
    ADD COLUMN error text;

CREATE INDEX notifications_due ON users.notifications (due_at) WHERE status = 'pending';
CREATE INDEX notifications_age ON users.notifications (created_at);
