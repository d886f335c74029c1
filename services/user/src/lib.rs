//! The user service: accounts, sign-in, and the tokens that the other services
//! check.
//!
//! The path of a sign-in, as reading order: [`app`] wires the service up;
//! `http` takes `POST /auth/login`, asks `throttle` whether this address may
//! try, reads the `account`, and has `password` compare the hash on a blocking
//! thread; `session` opens a family of refresh tokens; `signing` signs the
//! access token. Order events come in through `consumer`, become rows of
//! `notification`, and leave as mail through `mailer`. `reset` is for customers who have forgotten their
//! password, and `verification` checks that an address belongs to its owner.

mod account;
mod address;
mod admin;
mod app;
mod config;
mod consumer;
mod demo;
mod device;
mod docs;
mod failpoints;
mod grpc;
mod http;
mod mail_requests;
mod mailer;
mod notification;
mod password;
mod quota;
mod reset;
mod retention;
mod schema;
mod session;
mod signing;
mod throttle;
mod token;
mod user_agent;
mod verification;

/// Messaging's tables, then the service's own.
const MIGRATIONS: [&sqlx::migrate::Migrator; 3] =
    [&messaging::MIGRATIONS, &audit::MIGRATIONS, &OWN_MIGRATIONS];
static OWN_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

pub use admin::asked as admin;
pub use app::start;
pub use config::Config;
pub use http::document as openapi;

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(testing::arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }

    #[test]
    fn every_statement_is_in_a_store() {
        assert_eq!(testing::statements::outside_stores(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
