//! How a mail leaves the service: to a mail server, or into a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use lettre::message::Mailbox;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use uuid::Uuid;

use crate::config::Mail;

/// Mails kept in a folder; after this many new ones the oldest are deleted.
const MOST_FILES: usize = 1000;
const TIDY_EVERY: usize = 100;

pub(crate) struct Mailer {
    pub from: Mailbox,
    way: Way,
    deadline: Duration,
}

enum Way {
    /// A new connection for each mail: a connection that hung is not used again.
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// And how many files were written.
    Folder(PathBuf, AtomicUsize),
}

/// Why a mail did not leave. The detail may name its recipient: not for logs.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server can't be reached: then no other mail can be sent either.
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
                Way::Folder(folder.into(), AtomicUsize::new(0))
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            from: config.mail_from.parse().context("MAIL_FROM is not a mailbox: `Name <address>`")?,
            way,
            deadline: Duration::from_secs(config.smtp_deadline_seconds),
        }))
    }

    /// Hands the mail over. After a deadline it may have left all the same, as the server's last answer may
    /// be lost.
    pub async fn send(&self, id: Uuid, mail: Message) -> Result<(), Failure> {
        let send = async {
            match &self.way {
                Way::Smtp(server) => {
                    let ascii =
                        mail.envelope().to().iter().all(|address| AsRef::<str>::as_ref(address).is_ascii());
                    server.send(mail).await.map(drop).map_err(|error| classify(&error, ascii))
                }
                Way::Folder(folder, count) => {
                    let (folder, mail) = (folder.clone(), mail.formatted());
                    let tidy = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY);
                    let kept = tokio::task::spawn_blocking(move || {
                        keep(&folder, id, &mail)?;
                        if tidy { drop_oldest(&folder, MOST_FILES) } else { Ok(()) }
                    });
                    let kept = kept.await.map_err(std::io::Error::other).flatten();
                    kept.map_err(|error| Failure::Unreachable(error.to_string()))
                }
            }
        };
        let sent = tokio::time::timeout(self.deadline, send).await;
        sent.unwrap_or_else(|_| Err(Failure::Unreachable("no answer in time".to_owned())))
    }
}

/// Writes the mail's file.
fn keep(folder: &Path, id: Uuid, mail: &[u8]) -> std::io::Result<()> {
    let draft = folder.join(format!(".{id}"));
    std::fs::write(&draft, mail)?;
    std::fs::rename(&draft, folder.join(format!("{id}.eml")))
}

/// Deletes the oldest mails beyond `most`. Ids of events are UUIDv7, so the order of the names is the order
/// of the mails.
fn drop_oldest(folder: &Path, most: usize) -> std::io::Result<()> {
    let names = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Files of others stay.
    let ours = |name: &String| name.strip_suffix(".eml").is_some_and(|id| id.parse::<Uuid>().is_ok());
    let mut mails: Vec<String> = names.filter(ours).collect();
    mails.sort_unstable();
    for name in mails.iter().take(mails.len().saturating_sub(most)) {
        // A reader or another replica may have deleted it.
        let _ = std::fs::remove_file(folder.join(name));
    }
    Ok(())
}

/// Replies by their first digit (RFC 5321, section 4.2.1), except those about our account and not about the
/// mail (RFC 4954, section 6). Errors of lettre itself mean that the server lacks what every mail needs,
/// STARTTLS or a way to sign in, unless the address is one that needs SMTPUTF8.
fn classify(error: &smtp::Error, ascii: bool) -> Failure {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    match error.status().map(u16::from) {
        Some(454 | 530 | 534 | 535 | 538) => Failure::Unreachable(detail),
        _ if error.is_permanent() || (error.is_client() && !ascii) => Failure::Refused(detail),
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

    #[test]
    fn a_folder_keeps_the_newest_mails_and_what_is_not_ours() {
        let folder = std::env::temp_dir().join(format!("dockside-kept-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let others = ["notes.eml", "a.txt"].map(|name| folder.join(name));
        others.iter().for_each(|file| std::fs::write(file, "mine").unwrap());
        let ids: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            keep(&folder, *id, id.to_string().as_bytes()).unwrap();
        }
        // Sent again, it is still one file.
        keep(&folder, ids[4], b"again").unwrap();
        drop_oldest(&folder, 3).unwrap();
        let file = |id: &Uuid| std::fs::read_to_string(folder.join(format!("{id}.eml"))).ok();
        let kept: Vec<Option<String>> = ids.iter().map(file).collect();
        let own = |n: usize| Some(ids[n].to_string());
        assert_eq!(kept, [None, None, own(2), own(3), Some("again".to_owned())]);
        assert!(others.iter().all(|file| file.exists()));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
