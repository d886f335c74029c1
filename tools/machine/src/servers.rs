//! The private servers: PostgreSQL, RabbitMQ and nginx as this checkout's own instances, and Prometheus beside them.

pub mod monitoring;
pub mod nginx;
pub mod postgres;
pub mod rabbitmq;
pub mod start;
pub mod tls;
