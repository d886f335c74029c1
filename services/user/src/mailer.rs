//! How a mail leaves the house: to a mail server, or into a folder.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use uuid::Uuid;

use crate::config::Mail;

pub(crate) struct Mailer {
    pub from: Mailbox,
    way: Way,
    deadline: Duration,
}

enum Way {
    /// A connection for each mail: nothing is left of one that hung.
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(PathBuf),
}

/// Why a mail did not leave. The detail may name its recipient: not for logs.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server could not be talked to: so it is for every other mail too.
    Unreachable(String),
    /// The server asks to try again later.
    Later(String),
    /// The server will not take this mail, or it can't be made.
    Refused(String),
}

impl Failure {
    pub fn detail(&self) -> &str {
        match self {
            Self::Unreachable(detail) | Self::Later(detail) | Self::Refused(detail) => detail,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Later(_) => "later",
            Self::Refused(_) => "refused",
        }
    }
}

impl Mailer {
    /// `None` when mail is not to be sent at all.
    pub fn new(config: &Mail) -> anyhow::Result<Option<Self>> {
        // An empty variable is how compose files leave one out.
        let given = |setting: &Option<String>| setting.clone().filter(|text| !text.is_empty());
        let way = match (given(&config.smtp_url), given(&config.mail_dir)) {
            (Some(_), Some(_)) => anyhow::bail!("SMTP_URL and MAIL_DIR are both set; unset one"),
            (Some(url), None) => {
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url);
                Way::Smtp(builder.context("SMTP_URL is not the address of a mail server")?.build())
            }
            (None, Some(folder)) => {
                std::fs::create_dir_all(&folder).context("MAIL_DIR can't be created")?;
                Way::Folder(folder.into())
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            from: config.mail_from.parse().context("MAIL_FROM is not a mailbox: `Name <address>`")?,
            way,
            deadline: Duration::from_secs(config.smtp_deadline_seconds),
        }))
    }

    /// Hands the mail over. After a deadline that passed it may have left all
    /// the same, if the server's last answer was lost.
    pub async fn send(&self, id: Uuid, mail: Message) -> Result<(), Failure> {
        let send = async {
            match &self.way {
                Way::Smtp(server) => server.send(mail).await.map(drop).map_err(|error| classify(&error)),
                Way::Folder(folder) => {
                    let (file, draft) = (folder.join(format!("{id}.eml")), folder.join(format!(".{id}")));
                    let write = async {
                        tokio::fs::write(&draft, mail.formatted()).await?;
                        tokio::fs::rename(&draft, &file).await
                    };
                    write.await.map_err(|error| Failure::Unreachable(error.to_string()))
                }
            }
        };
        let sent = tokio::time::timeout(self.deadline, send).await;
        sent.unwrap_or_else(|_| Err(Failure::Unreachable("no answer in time".to_owned())))
    }
}

/// Replies by their first digit (RFC 5321, section 4.2.1), but for those that
/// are about our account and not about the mail (RFC 4954, section 6).
fn classify(error: &smtp::Error) -> Failure {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    match error.status().map(u16::from) {
        Some(454 | 530 | 534 | 535 | 538) => Failure::Unreachable(detail),
        _ if error.is_permanent() || error.is_client() => Failure::Refused(detail),
        _ if error.is_transient() => Failure::Later(detail),
        _ => Failure::Unreachable(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(smtp_url: &str, mail_dir: &str, mail_from: &str) -> Mail {
        Mail {
            smtp_url: Some(smtp_url.to_owned()),
            smtp_deadline_seconds: 1,
            mail_dir: Some(mail_dir.to_owned()),
            mail_from: mail_from.to_owned(),
        }
    }

    #[test]
    fn settings_that_can_not_work_are_refused_at_the_start() {
        let from = "Shop <shop@example.com>";
        for good in
            ["smtp://localhost:25", "smtps://a:b@mail.example.com", "smtp://mail.example.com?tls=required"]
        {
            assert!(Mailer::new(&mail(good, "", from)).unwrap().is_some(), "{good}");
        }
        assert!(Mailer::new(&mail("", "", from)).unwrap().is_none());
        assert!(Mailer::new(&mail("smtp://localhost", "", "Shop")).is_err());
        for bad in ["localhost", "http://localhost", "smtp://"] {
            assert!(Mailer::new(&mail(bad, "", from)).is_err(), "{bad}");
        }
        let both = Mailer::new(&mail("smtp://localhost", "/nowhere", from)).map(drop).unwrap_err();
        assert!(both.to_string().contains("both set"), "{both}");
    }
}
