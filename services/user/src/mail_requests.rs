//! Requests for mails with tokens, by clients who are not signed in. Every client gets the same answer in the
//! same time, whether or not the address has an account: the account is looked up only after the answer. If
//! the process dies before that, the customer gets no mail and asks again.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::ensure;
use service::Problem;
use service::db::Pool;
use tokio::sync::Semaphore;

use crate::account::Email;
use crate::config::{Config, EmailVerification};
use crate::token::Link;
use crate::{quota, reset, verification};

/// Tokens that are made at the same time; more are refused.
const AT_ONCE: usize = 32;

/// Of those, how many hold a connection.
const TURNS: usize = 2;

/// The reason for a mail.
#[derive(Clone, Copy)]
pub(crate) enum Wish {
    NewPassword,
    /// The token that verifies an address once more.
    Verification,
}

#[derive(Clone)]
pub(crate) struct MailRequests {
    pool: Pool,
    places: Arc<Semaphore>,
    /// Held while a token is made, so that a burst leaves the pool to others.
    turns: Arc<Semaphore>,
    password_link: Option<Link>,
    verification_link: Option<Link>,
    /// Requests of one client address within an hour.
    per_caller: i32,
    /// Whether mails are sent at all. Without them there are no tokens: nobody could get one.
    mails: bool,
    verifies: bool,
}

impl MailRequests {
    /// Fails when a link has no place for a token, and when addresses are to be verified without a mail server.
    pub fn new(config: &Config, pool: Pool, mails: bool) -> anyhow::Result<Self> {
        let verifies = config.email_verification == EmailVerification::Required;
        ensure!(
            mails || !verifies,
            "EMAIL_VERIFICATION=required needs a mail server: set SMTP_URL, or MAIL_DIR for development"
        );
        let verification = config.email_verification_url.as_deref();
        Ok(Self {
            pool,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            turns: Arc::new(Semaphore::new(TURNS)),
            password_link: Link::parse("PASSWORD_RESET_URL", config.password_reset_url.as_deref())?,
            verification_link: Link::parse("EMAIL_VERIFICATION_URL", verification)?,
            per_caller: config.password_resets_an_hour,
            mails,
            verifies,
        })
    }

    /// Whether an address counts only once a token that was sent there has come back.
    pub fn verifies(&self) -> bool {
        self.verifies
    }

    pub fn verification_link(&self) -> Option<&Link> {
        self.verification_link.as_ref()
    }

    /// Counts a client's request for a mail to whatever address; 429 when it has made too many.
    pub async fn admit(&self, wish: Wish, caller: Option<IpAddr>) -> Result<(), Problem> {
        let Some(caller) = caller else { return Ok(()) };
        let code = match wish {
            Wish::NewPassword => "too_many_resets",
            Wish::Verification => "too_many_mails",
        };
        let mut connection = self.pool.acquire().await?;
        quota::ask(&mut connection, caller, self.per_caller, code).await
    }

    /// Takes a request. Only the mail shows its result. 429 when `caller` has asked too often, for whatever
    /// reason; 503 when too much is under way.
    pub async fn receive(&self, wish: Wish, email: Email, caller: Option<IpAddr>) -> Result<(), Problem> {
        self.admit(wish, caller).await?;
        if !self.mails {
            return Ok(());
        }
        let busy = || Problem::unavailable("Too many requests at once; try again.");
        let place = self.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let requests = self.clone();
        // After the answer, so that its time says nothing about the account.
        tokio::spawn(async move {
            let network = caller.map(quota::network);
            if let Err(error) = requests.grant(wish, &email, network.as_deref()).await {
                match wish {
                    Wish::NewPassword => tracing::warn!(%error, "password_reset.not_granted"),
                    Wish::Verification => tracing::warn!(%error, "verification.not_granted"),
                }
            }
            drop(place);
        });
        Ok(())
    }

    async fn grant(&self, wish: Wish, email: &Email, network: Option<&str>) -> sqlx::Result<()> {
        let _turn = self.turns.acquire().await;
        let mut transaction = service::db::begin(&self.pool).await?;
        match wish {
            Wish::NewPassword => reset::grant(&mut transaction, email, self.password_link.as_ref()).await?,
            Wish::Verification => {
                verification::again(&mut transaction, email, network, self.verification_link()).await?;
            }
        }
        transaction.commit().await
    }
}
