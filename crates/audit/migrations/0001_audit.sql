-- Who did what. Rows are only added: UPDATE, TRUNCATE and DELETE within a year are refused, whoever asks.
CREATE TABLE audit_log (
    -- UUIDv7: in order of time.
    id          uuid        PRIMARY KEY,
    -- As in the id.
    at          timestamptz NOT NULL,
    -- Null: nobody who is known.
    actor       uuid,
    role        text,
    action      text        NOT NULL,
    object_kind text        NOT NULL,
    object_id   text,
    -- [{"field", "before", "after"}]. Of a personal value only the field is here.
    changes     jsonb       NOT NULL,
    request_id  text
);

CREATE INDEX audit_log_actor ON audit_log (actor, id) WHERE actor IS NOT NULL;
CREATE INDEX audit_log_action ON audit_log (action, id);
CREATE INDEX audit_log_object ON audit_log (object_id, id) WHERE object_id IS NOT NULL;

-- Personal values before and after, which an erasure deletes. Without a foreign key: its check needs the right to
-- update audit_log, which nobody has.
CREATE TABLE audit_personal (
    entry   uuid  PRIMARY KEY,
    -- Whose values they are.
    subject uuid  NOT NULL,
    -- [{"field", "before", "after"}].
    changes jsonb NOT NULL
);

CREATE INDEX audit_personal_subject ON audit_personal (subject);

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.at < now() - interval '365 days' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '% of % is refused: rows are only added', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_log_not_updated BEFORE UPDATE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_log_not_deleted BEFORE DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_personal_not_updated BEFORE UPDATE OR TRUNCATE ON audit_personal
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
-- In every session, of a replication too.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_not_updated, ENABLE ALWAYS TRIGGER audit_log_not_deleted;
ALTER TABLE audit_personal ENABLE ALWAYS TRIGGER audit_personal_not_updated;

-- The service owns the tables, and takes from itself what it does not need. (To lock a row of audit_personal it needs
-- the right to update it.)
REVOKE UPDATE, TRUNCATE ON audit_log FROM CURRENT_USER;
REVOKE TRUNCATE ON audit_personal FROM CURRENT_USER;
