//! Mail over TLS, from the first byte (`smtps:`) and after STARTTLS: to a server
//! that the machine trusts, and to none that it doesn't.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use crate::app::App;
use crate::app::mail::{TIME_PASSES, queue, until, until_sent};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use uuid::Uuid;

/// What a conversation is held over.
#[derive(Clone, Copy, PartialEq)]
enum Tls {
    FromTheStart,
    /// STARTTLS is offered.
    Offered,
    /// After STARTTLS.
    Begun,
    None,
}

/// A mail server with a certificate of its own authority.
struct Server {
    address: String,
    /// The authority's certificate, as a PEM file.
    authority: PathBuf,
    /// Mails, and whether they came over TLS.
    received: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Server {
    async fn start(tls: Tls) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &authority).unwrap().der().clone();
        let file = std::env::temp_dir().join(format!("dockside-authority-{}.pem", Uuid::now_v7()));
        std::fs::write(&file, authority.pem()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, authority: file, received: received.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, received) = (acceptor.clone(), received.clone());
                tokio::spawn(async move {
                    if tls == Tls::FromTheStart {
                        return talk(acceptor.accept(stream).await?, tls, &received).await.map(drop);
                    }
                    match talk(stream, tls, &received).await? {
                        None => Ok(()),
                        Some(stream) => {
                            talk(acceptor.accept(stream).await?, Tls::Begun, &received).await.map(drop)
                        }
                    }
                });
            }
        });
        server
    }

    fn received(&self) -> Vec<(String, bool)> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority);
    }
}

/// Talks until the client leaves, or asks for TLS: then the stream comes back.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: Tls,
    received: &Mutex<Vec<(String, bool)>>,
) -> std::io::Result<Option<S>> {
    let mut stream = BufReader::new(stream);
    // After STARTTLS it is the client's turn (RFC 3207, section 4.2).
    if tls != Tls::Begun {
        stream.write_all(b"220 mail.test ESMTP\r\n").await?;
        stream.flush().await?;
    }
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let reply = match line.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" if tls == Tls::Offered => "250-mail.test\r\n250 STARTTLS",
            "STARTTLS" if tls == Tls::Offered => {
                stream.write_all(b"220 Go on\r\n").await?;
                return Ok(Some(stream.into_inner()));
            }
            "DATA" => {
                stream.write_all(b"354 Go on\r\n").await?;
                stream.flush().await?;
                let mut data = String::new();
                while !data.ends_with("\r\n.\r\n") {
                    if stream.read_line(&mut data).await? == 0 {
                        return Ok(None);
                    }
                }
                let private = matches!(tls, Tls::FromTheStart | Tls::Begun);
                received.lock().unwrap().push((data, private));
                "250 Taken"
            }
            _ => "250 OK",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        stream.flush().await?;
    }
}

/// The program itself, on a machine that trusts `authority`.
struct Process(Child);

impl Process {
    fn start(database_url: &str, smtp_url: &str, authority: &std::path::Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_user"))
            .env_clear()
            .envs([
                ("DATABASE_URL", database_url),
                ("AMQP_URL", crate::app::NO_BROKER),
                ("ALLOW_PLAINTEXT", "true"),
                ("SMTP_URL", smtp_url),
            ])
            .envs(["HTTP_ADDR", "GRPC_ADDR", "ADMIN_ADDR"].map(|name| (name, "127.0.0.1:0")))
            .env("SSL_CERT_FILE", authority)
            .env("RUST_LOG", "off")
            .spawn();
        Self(child.expect("the program starts"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_trusted_server_gets_mail_over_tls_both_ways() {
    for (tls, scheme, query) in [(Tls::FromTheStart, "smtps", ""), (Tls::Offered, "smtp", "?tls=required")] {
        let server = Server::start(tls).await;
        let app = App::start().await;
        let event = queue(&app, "ada@example.com").await;
        let url = format!("{scheme}://{}{query}", server.address);
        let _process = Process::start(&app.database_url, &url, &server.authority);
        until_sent(&app, event).await;
        let received = server.received();
        assert_eq!(received.len(), 1);
        assert!(received[0].1 && received[0].0.contains(&event.to_string()), "{received:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_or_trust_gets_nothing_and_no_mail_fails() {
    let cases = [
        (Tls::FromTheStart, "smtps", ""),
        (Tls::Offered, "smtp", "?tls=required"),
        (Tls::None, "smtps", ""),
        (Tls::None, "smtp", "?tls=required"),
    ];
    let cases = cases.map(async |(tls, scheme, query)| {
        let server = Server::start(tls).await;
        let url = format!("{scheme}://{}{query}", server.address);
        let settings = ["--smtp-url", &url, "--smtp-deadline-seconds=2"];
        let database = testing::database("users").await;
        let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &settings).await;
        let event = queue(&app, "ada@example.com").await;
        // The third time, a mail that the server turned down would fail.
        for attempts in 1..=3 {
            let tried = |row: &serde_json::Value| row["attempts"] == attempts && row["error"].is_string();
            let row = until(&app, event, "an attempt", tried).await;
            assert_eq!((&row["status"], &row["refusals"]), (&"pending".into(), &0.into()), "{url} {row}");
            app.sql("UPDATE users.notifications SET error = NULL").await;
            app.sql(TIME_PASSES).await;
        }
        assert_eq!(server.received(), []);
    });
    futures_util::future::join_all(cases).await;
}
