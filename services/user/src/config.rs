//! The service's settings.

use std::num::NonZeroUsize;

use clap::{ArgAction, Parser, ValueEnum};
use messaging::Naming;
use service::config::{Backends, Listen, Process};

#[derive(Parser)]
#[command(name = "user", about = "Accounts and sign-in")]
#[command(
    mut_arg("http_addr", |arg| arg.required(false).default_value("0.0.0.0:8081")),
    mut_arg("grpc_addr", |arg| arg.required(false).default_value("0.0.0.0:9081")),
    mut_arg("admin_addr", |arg| arg.required(false).default_value("0.0.0.0:7081"))
)]
pub struct Config {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub backends: Backends,
    #[command(flatten)]
    pub naming: Naming,
    /// Passwords hashed at the same time, each taking 19 MiB and one core for
    /// its time; as many as there are cores when not set.
    #[arg(long, env = "PASSWORD_HASHES_AT_ONCE")]
    pub password_hashes_at_once: Option<NonZeroUsize>,
    /// The services that may call, each with its public key: `order=<base64url>`.
    #[arg(long, env = "TRUSTED_CALLERS", default_value = "")]
    pub trusted_callers: String,
    #[command(flatten)]
    pub mail: Mail,
    /// Where the link in the mail to who has forgotten the password leads to; {token} in it stands for the token.
    /// Without it the mail has the token itself.
    #[arg(long, env = "PASSWORD_RESET_URL")]
    pub password_reset_url: Option<String>,
    /// Whether an e-mail address counts only once it is verified by a mail: `required`, for which mails must leave, or `off`.
    #[arg(long, env = "EMAIL_VERIFICATION", value_enum, default_value = "off")]
    pub email_verification: EmailVerification,
    /// Where the link in the mail that verifies an address leads to; {token} in it stands for the token. Without it the
    /// mail has the token itself.
    #[arg(long, env = "EMAIL_VERIFICATION_URL")]
    pub email_verification_url: Option<String>,
    /// Requests for mails with a token that one client address may make within an hour, registrations among them where
    /// addresses are verified.
    #[arg(long, env = "PASSWORD_RESETS_AN_HOUR", default_value_t = 30,
          value_parser = clap::value_parser!(i32).range(1..))]
    pub password_resets_an_hour: i32,
    /// What the private halves of the keys that tokens are signed with are encrypted with in the database: 32 random
    /// bytes as hex or base64. Of two, with a blank between, the first encrypts and both decrypt, so that one can be
    /// changed for another. Without it they are stored as they are.
    #[arg(long, env = "SIGNING_KEY_ENCRYPTION_KEY", hide_env_values = true)]
    pub signing_key_encryption_key: Option<String>,
    /// Creates the demo accounts, one of them an admin, whose passwords are public: never in production.
    #[arg(long, env = "DEMO_ACCOUNTS", default_value = "false", action = ArgAction::Set)]
    pub demo_accounts: bool,
    #[command(flatten)]
    pub process: Process,
    #[command(flatten)]
    pub audit: audit::Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmailVerification {
    Off,
    Required,
}

/// How mail leaves; without server and folder it is recorded, and not sent.
#[derive(clap::Args, Clone)]
pub struct Mail {
    /// The mail server: `smtp://host:25`, or `smtps://account:password@host`, or with STARTTLS
    /// `smtp://account:password@host:587?tls=required`; a path is the name to greet with.
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// Seconds that handing over one mail may take.
    #[arg(long, env = "SMTP_DEADLINE_SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(1..=20))]
    pub smtp_deadline_seconds: u64,
    /// A folder to write mails to instead, a file each, the newest 1,000 of them: for development.
    #[arg(long, env = "MAIL_DIR")]
    pub mail_dir: Option<String>,
    /// Who mails come from.
    #[arg(long, env = "MAIL_FROM", default_value = "Dockside <shop@dockside.test>")]
    pub mail_from: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn env_example_is_current() {
        let expected = service::config::env_example(&Config::command());
        assert!(
            include_str!("../../../.env.example").contains(&expected),
            ".env.example lacks this, after `# --- user ---`:\n{expected}"
        );
    }

    #[test]
    fn the_ports_have_defaults() {
        let config = Config::parse_from(["user", "--database-url=postgres://x", "--amqp-url=amqp://x"]);
        assert_eq!(config.listen.http_addr.port(), 8081);
        assert_eq!(config.listen.grpc_addr.port(), 9081);
        assert_eq!(config.listen.admin_addr.port(), 7081);
    }
}
