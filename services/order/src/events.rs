//! What goes on with orders, told to others: to services by events ([`publish`]), to clients that wait ([`stream`]). And
//! what others tell this service ([`consume`]).

pub mod consume;
pub mod publish;
pub mod stream;
mod ticket_store;
pub mod tickets;
