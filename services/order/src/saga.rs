//! Brings orders to their end. The rule is [`order_core::saga`]; here are the calls that it asks for, the
//! tables that hold its state, and the workers.

mod answers;
pub mod applier;
pub mod calls;
mod columns;
pub mod fact_store;
pub mod facts;
pub mod measured;
mod refund_store;
mod refund_turns;
mod row;
pub mod runner;
pub mod store;
pub mod timeline;
pub mod timeline_store;
pub mod watch;
pub mod webhooks;
mod worker;

pub use order_core::saga::refunds;
pub use order_core::saga::{Call, Effect, Input, IntentStatus, Phase, Refusal, State};
