//! The tests of the order service from outside, in one program, as each more is linked by itself. What needs the machine for itself is apart.

mod access;
mod audit;
mod authentication;
mod batches;
mod common;
mod database;
mod disputes;
mod erasure;
mod events;
mod fulfilment;
mod http;
mod idempotency;
mod lists;
mod localstripe;
mod notes;
mod openapi;
mod order_stream;
mod orders;
mod overload;
mod prices;
mod refunds;
mod saga;
mod search;
mod webhooks;
