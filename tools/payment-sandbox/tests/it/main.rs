//! The tests of the payment sandbox from outside, in one program: each more would be linked by itself.

mod authentication;
mod cards;
mod disputes;
mod durability;
mod events;
mod idempotency;
mod intents;
mod support;
mod versions;
mod webhooks;
