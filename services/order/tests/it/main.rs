//! The tests of the order service from outside, in one program: each more would be linked by itself.

mod access;
mod at_size;
mod batches;
mod common;
mod database;
mod erasure;
mod events;
mod fulfilment;
mod http;
mod idempotency;
mod listeners;
mod lists;
mod live;
mod openapi;
mod orders;
mod overload;
mod refunds;
mod webhooks;
