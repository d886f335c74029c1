-- What the role dockside_operator needs, in the shop's database; run by a superuser, safe to repeat, once the services have
-- made their tables. The role itself: CREATE ROLE dockside_operator LOGIN PASSWORD '...'.
DO $$ BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO dockside_operator', current_database());
END $$;
GRANT USAGE ON SCHEMA users, products, orders TO dockside_operator;

-- To compare. No addresses, no mail, no passwords.
GRANT SELECT ON users.outbox, users.inbox, products.outbox, products.inbox, orders.outbox, orders.inbox TO dockside_operator;
GRANT SELECT ON users.inbox_pruned, products.inbox_pruned, orders.inbox_pruned TO dockside_operator;
GRANT SELECT ON products.stock, products.stock_ledger, products.reservations, products.reservation_lines,
    products.forgotten_reservations TO dockside_operator;
GRANT SELECT ON orders.sagas, orders.order_items, orders.refunds TO dockside_operator;
GRANT SELECT (id, status, payment_status, total, currency, refunded, dispute, version, placed_at, updated_at) ON orders.orders TO dockside_operator;
GRANT SELECT (order_id, operation, answer_status, swept, created_at) ON orders.claims TO dockside_operator;

-- To tell one order's life.
GRANT SELECT ON orders.order_history TO dockside_operator;
GRANT SELECT (event_id, order_id, kind, status, created_at, settled_at) ON users.notifications TO dockside_operator;

-- To have the services do their work again.
GRANT UPDATE (news, next_at) ON orders.sagas TO dockside_operator;
GRANT UPDATE (published_at, claimed_until) ON users.outbox, products.outbox, orders.outbox TO dockside_operator;
