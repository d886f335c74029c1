//! Sees orders through to their end. The rule is [`order_core::saga`]; here are the calls that it asks for, the tables
//! that it is kept in, and the workers.

pub mod applier;
pub mod calls;
pub mod facts;
pub mod measured;
mod refund_store;
pub mod runner;
pub mod store;
pub mod timeline;
pub mod watch;
pub mod webhooks;

pub use order_core::saga::refunds;
pub use order_core::saga::{Call, Effect, Input, IntentStatus, Phase, Refusal, State};
