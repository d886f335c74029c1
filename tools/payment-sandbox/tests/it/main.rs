//! The tests of the payment sandbox from outside, in one program: each more would be linked by itself.

mod cards;
mod durability;
mod idempotency;
mod intents;
mod support;
mod webhooks;
