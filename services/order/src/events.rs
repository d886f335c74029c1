//! Changes of orders, for others: events for services ([`publish`]), and the stream for clients ([`stream`]).
//! Events from the other services are applied in [`consume`].

pub mod consume;
pub mod publish;
pub mod stream;
mod ticket_store;
pub mod tickets;
