//! The shop's own processes: ports, settings, order of start, and what the user is told.

mod links;
mod storefront;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::links::Links;
use crate::console::{bold, dim, line, seconds, step};
use crate::layout::{Layout, write_private};
use crate::net::{self, Probe};
use crate::process::output;
use crate::servers::start::Broker;
use crate::servers::{nginx, tls};
use crate::spec::Spec;
use crate::state::{Addresses, Secrets, replica_name};
use crate::supervisor::Supervisor;
use crate::system::given;
use crate::url::Url;

const LIMIT: Duration = Duration::from_secs(60);

/// Longer than the edge keeps an idle connection.
const SHUTDOWN_DELAY_SECONDS: u8 = 2;

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
    /// The edge's limits for a single address are out of the way.
    pub measured: bool,
    /// Processes of user, of product, of order and of the storefront.
    pub replicas: usize,
    /// The web pages; without them the shop is its API alone.
    pub storefront: bool,
    /// For runs with faults, the program between the services and what they call: its links can be made to fail.
    pub links: Option<PathBuf>,
    /// Where a cluster has several: by which address of the database and of the broker each replica goes, in turn. Empty:
    /// all by those given.
    pub balancers: Vec<(String, String)>,
    /// More settings of user, product and order.
    pub more: Vec<(&'static str, String)>,
}

/// HTTP, gRPC and admin.
type Three = [u16; 3];

/// The wanted ports where they are free, else free ones.
struct Ports {
    user: Vec<Three>,
    product: Vec<Three>,
    order: Vec<Three>,
    /// Nothing listens on the second of each.
    storefront: Vec<Three>,
    sandbox: u16,
    edge: u16,
}

impl Ports {
    fn choose(options: &Options, taken: &mut Vec<u16>) -> Result<Ports> {
        let mut one = |wanted: Option<u16>| -> Result<u16> {
            let port = net::choose(wanted.filter(|_| options.port.is_some()), taken)?;
            taken.push(port);
            Ok(port)
        };
        // The first replica of each has the usual ones.
        let mut all = |n: u16, replicas: usize| -> Result<Vec<Three>> {
            let usual = |kind: u16, replica: usize| (replica == 1).then_some(kind + n);
            (1..=replicas)
                .map(|r| Ok([one(usual(8080, r))?, one(usual(9080, r))?, one(usual(7080, r))?]))
                .collect()
        };
        let replicas = options.replicas;
        let (user, product, order) = (all(1, replicas)?, all(2, replicas)?, all(3, replicas)?);
        let storefront = all(4, if options.storefront { replicas } else { 0 })?;
        let sandbox = one(Some(8090))?;
        let edge = match options.port {
            Some(port) if port != 0 => port,
            _ => one(None)?,
        };
        Ok(Ports { user, product, order, storefront, sandbox, edge })
    }
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// `order`, `order-2`, `order-3`, each with its ports.
fn named<'a>(service: &'a str, ports: &'a [Three]) -> impl Iterator<Item = (String, Three)> + 'a {
    ports.iter().enumerate().map(move |(at, ports)| (replica_name(service, at + 1), *ports))
}

/// Starts the shop's programs and, once the broker is there too, the edge; waits until all are ready.
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
    let ports = Ports::choose(options, &mut taken)?;
    let mut links = Links::new(options.links.as_deref(), &mut taken)?;
    let database = Url { host: links.to("database", database.host.clone())?, ..database.clone() };
    let broker = broker.at(links.to("broker", broker.host().to_owned())?);
    let payment = format!("http://{}", links.to("provider", loopback(ports.sandbox))?);
    let scheme = if layout.tls { "https" } else { "http" };
    let mut grpc = |service: &str, ports: &[Three]| -> Result<String> {
        let mut address = |(name, ports): (String, Three)| links.to(&name, loopback(ports[1]));
        let addresses = named(service, ports).map(|replica| Ok(format!("{scheme}://{}", address(replica)?)));
        Ok(addresses.collect::<Result<Vec<_>>>()?.join(","))
    };
    let (product_grpc, user_grpc) = (grpc("product", &ports.product)?, grpc("user", &ports.user)?);

    let mut started = Vec::new();
    let mut start = |spec: Spec| {
        started.push(spec.name.clone());
        supervisor.start(spec)
    };
    if let Some(spec) = links.spec() {
        start(spec)?;
        supervisor.wait_ready("links", LIMIT)?;
    }
    let program = |name: &str| programs.get(name).cloned().with_context(|| format!("no program {name}"));
    let (key, public_key) = order_key(layout, &program("order")?)?;
    let edge = loopback(ports.edge);
    let shop = storefront::address(ports.edge);
    let page = |setting, path| storefront::page(setting, &shop, path).filter(|_| options.storefront);

    let sandbox_data = layout.dir.join("sandbox");
    fs::create_dir_all(&sandbox_data)?;
    let sandbox_http = format!("http://{}", loopback(ports.sandbox));
    start(Spec {
        name: "payment-sandbox".into(),
        program: program("payment-sandbox")?,
        args: Vec::new(),
        env: settings(
            [
                ("HTTP_ADDR", loopback(ports.sandbox)),
                ("DATA_DIR", sandbox_data.display().to_string()),
                ("SECRET_KEY", secrets.payment_secret_key.clone()),
                // Any replica takes them.
                ("WEBHOOK_URL", format!("http://{edge}/api/v1/payments/webhook")),
                ("WEBHOOK_SECRET", secrets.payment_webhook_secret.clone()),
                ("LOG_FORMAT", "json".into()),
            ]
            .into_iter()
            // The user's is the shop's.
            .chain(given("PUBLIC_URL").map(|_| ("PUBLIC_URL", sandbox_http.clone()))),
        ),
        run_as: None,
        addresses: Addresses { http: Some(sandbox_http.clone()), ..Addresses::default() },
        probe: Probe::HttpAnswer { url: format!("{sandbox_http}/livez") },
        hidden: false,
        container: None,
    })?;

    // As in a cluster: requests go on at the other replicas while one stops.
    let delay = (options.replicas > 1 && given("SHUTDOWN_DELAY_SECONDS").is_none())
        .then(|| ("SHUTDOWN_DELAY_SECONDS", SHUTDOWN_DELAY_SECONDS.to_string()));
    let mut serve = |service: &str, ports: &[Three], password: &str, own: Vec<(&str, String)>| {
        named(service, ports).enumerate().try_for_each(|(at, (name, ports))| {
            let account = format!("{service}_service");
            let (database, broker) = match options.balancers.get(at % options.balancers.len().max(1)) {
                Some((host, broker_host)) => {
                    (Url { host: host.clone(), ..database.clone() }, broker.at(broker_host.clone()))
                }
                None => (database.clone(), broker.clone()),
            };
            let common = [
                ("DATABASE_URL", database.with_account(&account, password).to_string()),
                ("AMQP_URL", broker.url_for(service, password)),
                // All on the loopback interface. The payment sandbox, which order calls, has no TLS.
                ("ALLOW_PLAINTEXT", (!layout.tls || service == "order").to_string()),
                ("HTTP_ADDR", loopback(ports[0])),
                ("GRPC_ADDR", loopback(ports[1])),
                ("ADMIN_ADDR", loopback(ports[2])),
                ("LOG_FORMAT", "json".into()),
            ];
            start(Spec {
                name,
                program: program(service)?,
                args: Vec::new(),
                env: settings(
                    common
                        .into_iter()
                        .chain(
                            layout.tls.then(|| ("TLS_DIR", tls::of(layout, service).display().to_string())),
                        )
                        .chain(delay.clone())
                        .chain(own.clone())
                        .chain(options.more.iter().cloned()),
                ),
                run_as: None,
                addresses: Addresses {
                    http: Some(format!("http://{}", loopback(ports[0]))),
                    grpc: Some(format!("{scheme}://{}", loopback(ports[1]))),
                    admin: Some(format!("http://{}", loopback(ports[2]))),
                },
                probe: Probe::Http { url: format!("http://{}/readyz", loopback(ports[2])) },
                hidden: false,
                container: None,
            })
        })
    };
    let demo = options.demo.then_some(("DEMO_DATA", "true".to_owned()));
    let demo_accounts = options.demo.then_some(("DEMO_ACCOUNTS", "true".to_owned()));
    let keys = match layout.tls {
        false => format!("http://{edge}"),
        true => format!("https://{}", loopback(ports.user[0][1])),
    };
    let jwks = ("JWKS_URL", format!("{keys}/.well-known/jwks.json"));
    let trusted = ("TRUSTED_CALLERS", format!("order={public_key}"));
    // A mail server of the user's own wins over files.
    let mail = (!is_set("SMTP_URL")).then(|| ("MAIL_DIR", layout.dir.join("mail").display().to_string()));
    // Tests ask more often, all from one address.
    let resets =
        (!is_set("PASSWORD_RESETS_AN_HOUR")).then(|| ("PASSWORD_RESETS_AN_HOUR", "1000000".to_owned()));
    let new_password = page("PASSWORD_RESET_URL", "/reset-password?token={token}");
    let verification = page("EMAIL_VERIFICATION_URL", "/confirm-email?token={token}");
    let own = [trusted.clone()].into_iter().chain(mail).chain(resets).chain(new_password).chain(verification);
    let own = own.chain(demo_accounts.clone()).collect();
    serve("user", &ports.user, &secrets.user, own)?;
    let folder = fs::canonicalize(&layout.dir)?.join("objects");
    let objects = object_store(&folder, options.hasty, is_set("OBJECT_STORE_URL"));
    let objects = objects.map(|url| ("OBJECT_STORE_URL", url));
    // That of the demo data.
    let currency =
        (options.demo && !is_set("DEFAULT_CURRENCY")).then(|| ("DEFAULT_CURRENCY", "EUR".to_owned()));
    let own = [jwks.clone(), trusted].into_iter().chain(objects).chain(demo).chain(currency).collect();
    serve("product", &ports.product, &secrets.product, own)?;
    let own = [
        jwks,
        ("PRODUCT_GRPC", product_grpc),
        ("USER_GRPC", user_grpc),
        ("PAYMENT_URL", payment),
        ("PAYMENT_SECRET_KEY", secrets.payment_secret_key.clone()),
        ("PAYMENT_WEBHOOK_SECRET", secrets.payment_webhook_secret.clone()),
        ("SERVICE_KEY_FILE", key.display().to_string()),
    ];
    let back = page("PAYMENT_RETURN_URL", "/orders/{order_id}");
    let unpaid = (!is_set("UNPAID_ORDERS_AN_HOUR")).then(|| ("UNPAID_ORDERS_AN_HOUR", "1000000".to_owned()));
    let own = own.into_iter().chain(back).chain(unpaid).chain(links::short_times(options)).collect();
    serve("order", &ports.order, &secrets.order, own)?;

    for replica in named("storefront", &ports.storefront) {
        let more = delay.clone().into_iter().chain(demo_accounts.clone());
        start(storefront::spec(replica, program("storefront")?, &edge, &shop, secrets, more))?;
    }

    let http = |ports: &[Three]| ports.iter().map(|ports| ports[0]).collect();
    let edge = nginx::Edge {
        port: ports.edge,
        user: http(&ports.user),
        product: http(&ports.product),
        order: http(&ports.order),
        storefront: http(&ports.storefront),
        storefront_key: secrets.storefront_key.clone(),
        limited: !options.measured,
    };
    start(nginx::spec(layout, &edge, options.contained)?)?;
    thread::scope(|scope| {
        let wait = |name: &str| -> Result<()> {
            let took = supervisor.wait_ready(name, LIMIT)?;
            step(name, &format!("ready in {}", seconds(took)));
            Ok(())
        };
        let waiting: Vec<_> = started.iter().map(|name| scope.spawn(move || wait(name))).collect();
        let results =
            waiting.into_iter().map(|w| w.join().unwrap_or_else(|_| bail!("a waiting thread panicked")));
        results.collect::<Result<Vec<()>>>()
    })?;
    supervisor.update(|s| s.edge = Some(format!("http://localhost:{}", ports.edge)))
}

/// Whether the user's environment has a setting, in either way: the services then get it from there.
fn is_set(name: &str) -> bool {
    given(name).or_else(|| given(&format!("{name}_FILE"))).is_some()
}

/// Where product images go; `None` leaves it to the user's environment, which has `theirs`. Not in tests, which leave
/// things behind.
fn object_store(folder: &Path, tests: bool, theirs: bool) -> Option<String> {
    let url = || format!("file://{}", folder.display()).replace('%', "%25").replace(' ', "%20");
    (tests || !theirs).then(url)
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

/// What to do next; with the address of the pages where there are some.
pub fn summary(edge: &str, demo: bool, pages: bool) {
    if pages {
        line(&format!("  {}  {}", bold("The shop:"), bold(edge)));
    }
    line(&format!("  {}   {edge}/docs", bold("Its API:")));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::service_of;

    #[test]
    fn the_first_replica_has_the_services_name_and_the_others_a_number() {
        let ports = [[1, 2, 3], [4, 5, 6]];
        let names: Vec<_> = named("order", &ports).collect();
        assert_eq!(names, [("order".to_owned(), ports[0]), ("order-2".to_owned(), ports[1])]);
        assert_eq!(
            ["order", "order-2", "payment-sandbox"].map(service_of),
            ["order", "order", "payment-sandbox"]
        );
    }

    #[test]
    fn images_go_where_the_user_says_but_in_tests() {
        let of = |tests, theirs| object_store(Path::new("/a shop/100%"), tests, theirs);
        assert_eq!(of(false, true), None);
        for (tests, theirs) in [(false, false), (true, true), (true, false)] {
            assert_eq!(of(tests, theirs).as_deref(), Some("file:///a%20shop/100%25"));
        }
    }

    #[test]
    fn every_process_has_ports_of_its_own() {
        let options = Options {
            port: None,
            demo: false,
            contained: false,
            hasty: false,
            measured: false,
            replicas: 3,
            storefront: true,
            links: None,
            balancers: Vec::new(),
            more: Vec::new(),
        };
        let mut taken = Vec::new();
        let ports = Ports::choose(&options, &mut taken).unwrap();
        let lengths = [&ports.user, &ports.product, &ports.order, &ports.storefront].map(Vec::len);
        assert_eq!(lengths, [3; 4]);
        let all = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!((taken.len(), all), (4 * 3 * 3 + 2, 4 * 3 * 3 + 2));
    }
}
