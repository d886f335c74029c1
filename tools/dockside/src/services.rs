//! The shop's own processes: ports, settings, order of start, and what the user is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::console::{bold, dim, line, seconds, step};
use crate::layout::{Layout, write_private};
use crate::net::{self, Probe};
use crate::process::output;
use crate::servers::nginx;
use crate::servers::start::Broker;
use crate::state::{Addresses, Secrets};
use crate::supervisor::{Spec, Supervisor};
use crate::url::Url;

const LIMIT: Duration = Duration::from_secs(60);

/// The shop's address is the one port that is not changed silently: people and scripts know it.
pub fn check_edge_port(port: u16) -> Result<()> {
    if port == 0 || net::free(port) {
        return Ok(());
    }
    bail!(
        "port {port} is taken by another program: stop it (`ss -ltnp | grep :{port}` names it), or choose \
         another one: cargo dockside up --port {}",
        net::choose(None, &[])?
    )
}

pub struct Options {
    /// The edge's port; `None` takes free ports for everything.
    pub port: Option<u16>,
    /// Demo catalogue and accounts.
    pub demo: bool,
    /// The edge as a container.
    pub contained: bool,
    /// Short leases, so that what a dead process left behind is soon taken over: for tests.
    pub hasty: bool,
}

/// The wanted ports where they are free, else free ones.
struct Ports {
    user: [u16; 3],
    product: [u16; 3],
    order: [u16; 3],
    sandbox: u16,
}

impl Ports {
    fn choose(usual: bool, taken: &mut Vec<u16>) -> Result<Ports> {
        let mut one = |wanted| -> Result<u16> {
            let port = net::choose(usual.then_some(wanted), taken)?;
            taken.push(port);
            Ok(port)
        };
        let mut three = |n: u16| -> Result<[u16; 3]> { Ok([one(8080 + n)?, one(9080 + n)?, one(7080 + n)?]) };
        let (user, product, order) = (three(1)?, three(2)?, three(3)?);
        Ok(Ports { user, product, order, sandbox: one(8090)? })
    }
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Starts the four programs and, once the broker is there too, the edge; waits until all are ready.
pub fn start(
    layout: &Layout,
    supervisor: &Supervisor,
    options: &Options,
    secrets: &Secrets,
    database: &Url,
    programs: &BTreeMap<String, PathBuf>,
    broker: &Broker,
) -> Result<()> {
    let mut taken: Vec<u16> = supervisor.state().ports.values().copied().collect();
    taken.extend(options.port);
    let ports = Ports::choose(options.port.is_some(), &mut taken)?;
    let program = |name: &str| programs.get(name).cloned().with_context(|| format!("no program {name}"));
    let order_program = program("order")?;
    let (key, public_key) = order_key(layout, &order_program)?;
    let demo = options.demo.then_some(("DEMO_DATA", "true".to_owned()));
    let jwks = ("JWKS_URL", format!("http://{}/.well-known/jwks.json", loopback(ports.user[0])));

    let sandbox_data = layout.dir.join("sandbox");
    fs::create_dir_all(&sandbox_data)?;
    let sandbox_http = format!("http://{}", loopback(ports.sandbox));
    let webhook = format!("http://{}/api/v1/payments/webhook", loopback(ports.order[0]));
    supervisor.start(Spec {
        name: "payment-sandbox",
        program: program("payment-sandbox")?,
        args: Vec::new(),
        env: settings([
            ("HTTP_ADDR", loopback(ports.sandbox)),
            ("DATA_DIR", sandbox_data.display().to_string()),
            ("SECRET_KEY", secrets.payment_secret_key.clone()),
            ("WEBHOOK_URL", webhook),
            ("WEBHOOK_SECRET", secrets.payment_webhook_secret.clone()),
            ("LOG_FORMAT", "json".into()),
        ]),
        run_as: None,
        addresses: Addresses { http: Some(sandbox_http.clone()), ..Addresses::default() },
        probe: Probe::HttpAnswer { url: format!("{sandbox_http}/livez") },
        hidden: false,
        container: None,
    })?;

    let service =
        |name: &'static str, program, ports: [u16; 3], password: &str, own: Vec<(&str, String)>| Spec {
            name,
            program,
            args: Vec::new(),
            env: settings(
                [
                    ("DATABASE_URL", database.with_account(&format!("{name}_service"), password).to_string()),
                    ("AMQP_URL", broker.url_for(name, password)),
                    ("HTTP_ADDR", loopback(ports[0])),
                    ("GRPC_ADDR", loopback(ports[1])),
                    ("ADMIN_ADDR", loopback(ports[2])),
                    ("LOG_FORMAT", "json".into()),
                ]
                .into_iter()
                .chain(own),
            ),
            run_as: None,
            addresses: Addresses {
                http: Some(format!("http://{}", loopback(ports[0]))),
                grpc: Some(format!("http://{}", loopback(ports[1]))),
                admin: Some(format!("http://{}", loopback(ports[2]))),
            },
            probe: Probe::Http { url: format!("http://{}/readyz", loopback(ports[2])) },
            hidden: false,
            container: None,
        };
    let trusted = ("TRUSTED_CALLERS", format!("order={public_key}"));
    // A mail server of the user's own wins over files.
    let sends = std::env::var_os("SMTP_URL").is_some_and(|url| !url.is_empty());
    let mail = (!sends).then(|| ("MAIL_DIR", layout.dir.join("mail").display().to_string()));
    let own = [trusted.clone()].into_iter().chain(mail).chain(demo.clone()).collect();
    supervisor.start(service("user", program("user")?, ports.user, &secrets.user, own))?;
    let objects = format!("file://{}", fs::canonicalize(&layout.dir)?.join("objects").display());
    let own = [jwks.clone(), trusted, ("OBJECT_STORE_URL", objects.replace('%', "%25").replace(' ', "%20"))];
    let own = own.into_iter().chain(demo).collect();
    supervisor.start(service("product", program("product")?, ports.product, &secrets.product, own))?;
    let mut own = vec![
        jwks,
        ("PRODUCT_GRPC", format!("http://{}", loopback(ports.product[1]))),
        ("USER_GRPC", format!("http://{}", loopback(ports.user[1]))),
        ("PAYMENT_URL", sandbox_http),
        ("PAYMENT_SECRET_KEY", secrets.payment_secret_key.clone()),
        ("PAYMENT_WEBHOOK_SECRET", secrets.payment_webhook_secret.clone()),
        ("SERVICE_KEY_FILE", key.display().to_string()),
    ];
    if options.hasty {
        let short = [("CLAIM_LEASE_SECONDS", 4), ("SAGA_LEASE_SECONDS", 3), ("PROVIDER_CALL_SECONDS", 2)];
        own.extend(short.map(|(name, seconds)| (name, seconds.to_string())));
    }
    supervisor.start(service("order", order_program, ports.order, &secrets.order, own))?;

    let port = match options.port {
        Some(port) if port != 0 => port,
        _ => net::choose(None, &taken)?,
    };
    let [user, product, order] = [ports.user[0], ports.product[0], ports.order[0]];
    supervisor.start(nginx::spec(layout, &nginx::Edge { port, user, product, order }, options.contained)?)?;
    thread::scope(|scope| {
        let waiting = ["payment-sandbox", "user", "product", "order", "edge"].map(|name| {
            scope.spawn(move || -> Result<()> {
                let took = supervisor.wait_ready(name, LIMIT)?;
                step(name, &format!("ready in {}", seconds(took)));
                Ok(())
            })
        });
        let results = waiting.map(|w| w.join().unwrap_or_else(|_| bail!("a waiting thread panicked")));
        results.into_iter().collect::<Result<Vec<()>>>()
    })?;
    supervisor.update(|s| s.edge = Some(format!("http://localhost:{port}")))
}

fn settings<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The key with which order proves to product and user who it is: made once. Returns its file and the public half.
fn order_key(layout: &Layout, order: &Path) -> Result<(PathBuf, String)> {
    let (private, public) = (layout.dir.join("order.key.pem"), layout.dir.join("order.key.pub"));
    if !private.exists() || !public.exists() {
        let made = output(Command::new(order).arg("keygen").stdin(Stdio::null()))?;
        let pair: serde_json::Value = serde_json::from_str(&made).unwrap_or_default();
        let part = |name: &str| pair[name].as_str().context("`order keygen` did not print a key pair");
        write_private(&private, part("private_key_pem")?.as_bytes())?;
        write_private(&public, part("public_key")?.as_bytes())?;
    }
    let text = fs::read_to_string(&public).with_context(|| format!("cannot read {}", public.display()))?;
    Ok((private, text.trim().to_owned()))
}

/// What to do next.
pub fn summary(edge: &str, demo: bool) {
    line(&format!("  {}  {}", bold("The shop:"), bold(edge)));
    if demo {
        line("");
        line("  demo@dockside.test   dockside-demo    a customer");
        line("  staff@dockside.test  dockside-staff   keeps the catalogue, may see any order");
        line("  admin@dockside.test  dockside-admin   staff too");
    }
    line("");
    line(&format!("  {}", dim("# look around, then buy something")));
    line(&format!("  curl '{edge}/api/v1/products?q=coffee&limit=3'"));
    line("  cargo dockside smoke");
}
