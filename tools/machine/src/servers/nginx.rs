//! The edge: nginx with the one configuration of every mode, `docker/edge/nginx.conf.template`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::docker;
use crate::layout::Layout;
use crate::net::Probe;
use crate::spec::Spec;
use crate::state::Addresses;
use crate::system::{data_dir, find, given, server_user, write_for};

pub fn find_program() -> Option<PathBuf> {
    find("nginx", &[])
}

/// Where the edge listens and what it sends to whom.
pub struct Edge {
    pub port: u16,
    /// Of each replica.
    pub user: Vec<u16>,
    pub product: Vec<u16>,
    pub order: Vec<u16>,
    /// None where there are no web pages.
    pub storefront: Vec<u16>,
    pub storefront_key: String,
    /// Whether a single address is held to a rate unless the environment says so.
    pub limited: bool,
}

/// Requests a second where nobody is to be held back.
const NO_LIMIT: &str = "100000";

/// Writes the configuration and says how to run it, `contained` as a container.
pub fn spec(layout: &Layout, edge: &Edge, contained: bool) -> Result<Spec> {
    let program =
        if contained { "nginx".into() } else { find_program().context("nginx is not installed")? };
    // As root, nginx's workers change to an account of their own, which must get to its folder.
    let user = server_user("nobody")?;
    let dir = data_dir(layout, "edge", user.as_ref())?;
    let text = layout.root.join("docker/edge/nginx.conf.template");
    let template = fs::read_to_string(&text).with_context(|| format!("cannot read {}", text.display()))?;
    let log = if cfg!(target_os = "linux") { "/dev/stdout".into() } else { layout.log("edge-access") };
    let setting = |name: &str, default: &str| given(name).unwrap_or(default.to_owned());
    let rate = |name: &str, usual: &str| setting(name, if edge.limited { usual } else { NO_LIMIT });
    let values = [
        ("EDGE_DIR", dir.display().to_string()),
        ("EDGE_LISTEN", format!("127.0.0.1:{}", edge.port)),
        ("EDGE_WORKERS", "auto".to_owned()),
        ("EDGE_ACCESS_LOG", setting("EDGE_ACCESS_LOG", &log.display().to_string())),
        ("EDGE_RESOLVER", "127.0.0.1".to_owned()),
        ("EDGE_TRUSTED_PROXY", setting("EDGE_TRUSTED_PROXY", "unix:")),
        ("CORS_ORIGINS", setting("CORS_ORIGINS", "")),
        ("EDGE_RATE", rate("EDGE_RATE", "2000")),
        ("EDGE_BURST", rate("EDGE_BURST", "4000")),
        ("EDGE_AUTH_RATE", rate("EDGE_AUTH_RATE", "20")),
        ("EDGE_AUTH_BURST", rate("EDGE_AUTH_BURST", "100")),
        ("USER_UPSTREAM", replicas(&edge.user)),
        ("PRODUCT_UPSTREAM", replicas(&edge.product)),
        ("ORDER_UPSTREAM", replicas(&edge.order)),
        ("STOREFRONT_UPSTREAM", replicas(&edge.storefront)),
        ("STOREFRONT_KEY", edge.storefront_key.clone()),
        ("CANARY_KEY", String::new()),
        // By the groups, whose connections are kept; no canary.
        ("USER_ROUTE", "user".to_owned()),
        ("PRODUCT_ROUTE", "product".to_owned()),
        ("ORDER_ROUTE", "order".to_owned()),
        ("STOREFRONT_ROUTE", "storefront".to_owned()),
        ("USER_CANARY", "user".to_owned()),
        ("PRODUCT_CANARY", "product".to_owned()),
        ("ORDER_CANARY", "order".to_owned()),
    ];
    let conf = dir.join("nginx.conf");
    write_for(user.as_ref(), &conf, &substitute(&template, &values)?)?;
    let url = format!("http://localhost:{}", edge.port);
    let spec = Spec {
        name: "edge".into(),
        program,
        args: vec![
            "-e".into(),
            "stderr".into(),
            "-p".into(),
            dir.display().to_string(),
            "-c".into(),
            conf.display().to_string(),
            "-g".into(),
            "daemon off;".into(),
        ],
        env: Vec::new(),
        run_as: user,
        addresses: Addresses { http: Some(url), ..Addresses::default() },
        // Answered by the edge itself.
        probe: Probe::HttpAnswer { url: format!("http://127.0.0.1:{}/healthz", edge.port) },
        hidden: false,
        container: None,
    };
    if contained { docker::contain(layout, spec, docker::NGINX, &dir) } else { Ok(spec) }
}

/// For the group of a service. None of them is left out because it failed a moment ago: with all of them left out, as one
/// after the other is restarted, there would be nobody to ask. Who is away refuses at once, and the next is asked.
fn replicas(ports: &[u16]) -> String {
    if ports.is_empty() {
        return "127.0.0.1 down".to_owned();
    }
    let servers: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port} max_fails=0")).collect();
    servers.join("; server ")
}

/// Replaces every `${NAME}` of the template's lines, except in comments.
///
/// # Errors
/// when a name has no value: nginx would take it for a variable of its own.
fn substitute(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::new();
    for line in template.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let mut line = line.to_owned();
        for (name, value) in values {
            line = line.replace(&format!("${{{name}}}"), value);
        }
        if let Some(at) = line.find("${") {
            bail!("the edge's configuration wants a value that is not known: {}", &line[at..]);
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// The edge by itself, without services behind it.
    struct Alone {
        process: std::process::Child,
        port: u16,
        dir: PathBuf,
    }

    impl Alone {
        /// With these values; all others are usual.
        fn start(own: &[(&'static str, &str)]) -> Self {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = std::env::temp_dir().join(format!("dockside-edge-{port}"));
            fs::create_dir_all(&dir).unwrap();
            let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker/edge/nginx.conf.template");
            // The first one of a name counts.
            let mut values: Vec<_> = own.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            values.extend([
                ("EDGE_DIR", dir.display().to_string()),
                ("EDGE_LISTEN", format!("127.0.0.1:{port}")),
                ("EDGE_ACCESS_LOG", "/dev/null".to_owned()),
                ("EDGE_TRUSTED_PROXY", "unix:".to_owned()),
                ("CORS_ORIGINS", String::new()),
                ("EDGE_RESOLVER", "127.0.0.1".to_owned()),
                ("EDGE_WORKERS", "1".to_owned()),
                ("STOREFRONT_UPSTREAM", replicas(&[])),
                ("STOREFRONT_ROUTE", "storefront".to_owned()),
                ("STOREFRONT_KEY", String::new()),
                ("CANARY_KEY", String::new()),
            ]);
            for name in ["EDGE_RATE", "EDGE_BURST", "EDGE_AUTH_RATE", "EDGE_AUTH_BURST"] {
                values.push((name, "1000".to_owned()));
            }
            for (upstream, route, canary, group) in [
                ("USER_UPSTREAM", "USER_ROUTE", "USER_CANARY", "user"),
                ("PRODUCT_UPSTREAM", "PRODUCT_ROUTE", "PRODUCT_CANARY", "product"),
                ("ORDER_UPSTREAM", "ORDER_ROUTE", "ORDER_CANARY", "order"),
            ] {
                values.extend([(upstream, "127.0.0.1:1".to_owned())]);
                values.extend([route, canary].map(|name| (name, group.to_owned())));
            }
            let conf = dir.join("nginx.conf");
            fs::write(&conf, substitute(&fs::read_to_string(template).unwrap(), &values).unwrap()).unwrap();
            let program = find_program().expect("nginx");
            let process = Command::new(program)
                .args(["-e", "stderr", "-g", "daemon off;", "-p"])
                .arg(&dir)
                .arg("-c")
                .arg(&conf)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let start = Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(start.elapsed() < Duration::from_secs(20), "nginx does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
            Self { process, port, dir }
        }

        /// The answer to a request with these header lines, in lower case.
        fn answer(&self, request: &str, headers: &str) -> String {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            write!(stream, "{request} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.to_lowercase()
        }
    }

    impl Drop for Alone {
        fn drop(&mut self) {
            // Killed, it would leave its workers, who keep the port and the test's output open.
            crate::process::kill(self.process.id(), crate::process::Signal::TERM);
            let _ = self.process.wait();
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn pages_of_the_origins_in_the_setting_may_call_the_api_and_no_others() {
        let edge = Alone::start(&[("CORS_ORIGINS", "https://shop.example.com, http://localhost:3000")]);
        let preflight = |origin: &str| {
            let asked = format!(
                "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: authorization, idempotency-key\r\n"
            );
            edge.answer("OPTIONS /api/v1/orders", &asked)
        };
        for origin in ["https://shop.example.com", "http://localhost:3000"] {
            let answer = preflight(origin);
            assert!(answer.starts_with("http/1.1 204"), "{answer}");
            assert!(answer.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{answer}");
            assert!(answer.contains("access-control-allow-methods: get, head, post"), "{answer}");
            assert!(answer.contains("idempotency-key, if-match"), "{answer}");
            assert!(answer.contains("vary: origin\r\n"), "{answer}");
            // An error of the edge's own can be read, too: nothing listens behind it.
            let answer = edge.answer("GET /api/v1/products", &format!("Origin: {origin}\r\n"));
            assert!(answer.starts_with("http/1.1 503"), "{answer}");
            assert!(answer.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{answer}");
            assert!(answer.contains("access-control-expose-headers: etag"), "{answer}");
        }
        for origin in [
            "https://shopXexample.com",
            "https://shop.example.com.test",
            "https://shop.example.com:8443",
            "http://shop.example.com",
            "https://shop.example",
            "null",
            "https://other.test | https://other.test",
            "https://other.test | https://shop.example.com",
        ] {
            let answer = preflight(origin);
            assert!(!answer.contains("access-control"), "{origin}: {answer}");
            assert!(answer.starts_with("http/1.1 503"), "{origin}: {answer}");
        }
    }

    #[test]
    fn without_the_setting_no_page_may_and_the_edge_says_that_it_is_well() {
        let edge = Alone::start(&[]);
        let answer = edge.answer("GET /healthz", "Origin: https://shop.example.com\r\n");
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with("{\"status\":\"ok\"}\n"), "{answer}");
        assert!(!answer.contains("access-control") && !answer.contains("vary: origin"), "{answer}");
    }

    /// A service whose answers are the heads of their requests; its port.
    fn echo() -> u16 {
        echo_with(String::new())
    }

    /// One whose answers have these header lines too.
    fn echo_with(more: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let (mut head, mut byte) = (Vec::<u8>::new(), [0_u8]);
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let own = format!(
                    "Connection: close\r\nX-Content-Type-Options: nosniff\r\nX-From: 127.0.0.1:{port}"
                );
                let own = if more.is_empty() { own } else { format!("{own}\r\n{more}") };
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n{own}\r\nContent-Length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(&head);
            }
        });
        port
    }

    #[test]
    fn one_visitors_guesses_are_refused_and_nobody_elses() {
        let service = format!("127.0.0.1:{}", echo());
        let limits = [("EDGE_AUTH_RATE", "1"), ("EDGE_AUTH_BURST", "3")];
        let own = [("STOREFRONT_KEY", "Key-1_a"), ("USER_UPSTREAM", service.as_str()), limits[0], limits[1]];
        let edge = Alone::start(&own);
        let guess = |headers: &str| edge.answer("POST /api/v1/auth/login", headers);
        let visitor =
            |address: &str| format!("X-Storefront-Key: Key-1_a\r\nX-Visitor-Address: {address}\r\n");
        let one = visitor("203.0.113.7");
        assert!((0..50).any(|_| guess(&one).starts_with("http/1.1 429")));
        for address in ["203.0.113.8", "2001:db8::7"] {
            let answer = guess(&visitor(address));
            assert!(answer.starts_with("http/1.1 200"), "{answer}");
            assert!(answer.contains(&format!("x-forwarded-for: {address}\r\n")), "{answer}");
            assert!(!answer.contains("key-1_a") && !answer.contains("x-visitor-address"), "{answer}");
        }
        // The storefront's own, which is this machine's.
        let answer = guess("X-Storefront-Key: Key-1_a\r\n");
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    }

    #[test]
    fn nobody_without_the_storefronts_key_is_believed_about_an_address() {
        let service = format!("127.0.0.1:{}", echo());
        let upstreams = [("USER_UPSTREAM", service.as_str()), ("STOREFRONT_UPSTREAM", service.as_str())];
        let with_key = Alone::start(&[("STOREFRONT_KEY", "Key-1_a"), upstreams[0], upstreams[1]]);
        let without = Alone::start(&[("STOREFRONT_KEY", ""), upstreams[0], upstreams[1]]);
        for (edge, key, address) in [
            (&with_key, "key-1_a", "203.0.113.7"),
            (&with_key, "Key-1_", "203.0.113.7"),
            (&with_key, "Key-1_ab", "203.0.113.7"),
            (&with_key, "", "203.0.113.7"),
            (&with_key, "Key-1_a", "\"},{"),
            (&with_key, "Key-1_a", "203.0.113.7, 203.0.113.8"),
            (&without, "", "203.0.113.7"),
            (&without, "Key-1_a", "203.0.113.7"),
        ] {
            let said = format!("X-Storefront-Key: {key}\r\nX-Visitor-Address: {address}\r\n");
            // The storefront hears neither header from outside.
            for path in ["/api/v1/me", "/orders/1/events", "/admin"] {
                let answer = edge.answer(&format!("GET {path}"), &said);
                assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{key}, {address}: {answer}");
                assert!(!answer.contains("x-storefront-key") && !answer.contains("x-visitor"), "{answer}");
                assert_eq!(answer.matches("x-content-type-options").count(), 1, "{answer}");
            }
        }
    }

    #[test]
    fn only_who_has_the_secret_asks_for_a_canary() {
        let (stable, canary) = (format!("127.0.0.1:{}", echo()), format!("127.0.0.1:{}", echo()));
        let of =
            |key| [("CANARY_KEY", key), ("ORDER_ROUTE", stable.as_str()), ("ORDER_CANARY", canary.as_str())];
        let (with_key, without) = (Alone::start(&of("Key-1_a")), Alone::start(&of("")));
        for edge in [&with_key, &without] {
            fs::create_dir_all(edge.dir.join("canary/order")).unwrap();
            fs::write(edge.dir.join("canary/order/asked"), "").unwrap();
        }
        let reached = |edge: &Alone, headers: &str| {
            let answer = edge.answer("GET /api/v1/orders", headers);
            assert!(!answer.contains("x-canary-key"), "{answer}");
            [&stable, &canary].map(|address| answer.contains(&format!("x-from: {address}\r\n")))
        };
        assert_eq!(reached(&with_key, "X-Canary: order\r\nX-Canary-Key: Key-1_a\r\n"), [false, true]);
        for headers in [
            "X-Canary: order\r\n",
            "X-Canary: order\r\nX-Canary-Key: key-1_a\r\n",
            "X-Canary: order\r\nX-Canary-Key: Key-1_ab\r\n",
            "X-Canary: order\r\nX-Canary-Key:\r\n",
            "X-Canary: user\r\nX-Canary-Key: Key-1_a\r\n",
            "X-Canary-Key: Key-1_a order\r\n",
        ] {
            assert_eq!(reached(&with_key, headers), [true, false], "{headers}");
            assert_eq!(reached(&without, headers), [true, false], "{headers}");
        }
    }

    #[test]
    fn every_answer_says_what_a_browser_may_do_with_it() {
        let service = format!("127.0.0.1:{}", echo());
        let alone = Alone::start(&[]);
        let limits = [("EDGE_RATE", "1"), ("EDGE_BURST", "1")];
        let limited = Alone::start(&[limits[0], limits[1], ("USER_UPSTREAM", service.as_str())]);
        let busy = (0..50).map(|_| limited.answer("GET /api/v1/me", ""));
        let long = format!("GET /{}", "x".repeat(20_000));
        let answers = [
            alone.answer("GET /healthz", ""),
            alone.answer("GET /api/v1/me", ""),
            alone.answer("GET /api/v1/nothing", ""),
            alone.answer("GET /docs/", ""),
            alone.answer("TRACE /api/v1/me", ""),
            alone.answer("GET /", ""),
            alone.answer("GET /admin", ""),
            alone.answer(&long, ""),
            alone.answer("GET /", "Content-Length: x\r\n"),
        ];
        for answer in answers.into_iter().chain(busy) {
            let (head, _) = answer.split_once("\r\n\r\n").unwrap();
            for line in [
                "content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
            ] {
                assert_eq!(head.matches(&format!("\r\n{line}")).count(), 1, "{line}: {head}");
            }
        }
    }

    #[test]
    fn what_a_service_says_of_its_own_answer_stays() {
        let own = ["Content-Security-Policy: default-src 'self'", "Referrer-Policy: same-origin"];
        let service = format!("127.0.0.1:{}", echo_with(own.join("\r\n")));
        let edge = Alone::start(&[("USER_UPSTREAM", &service), ("STOREFRONT_UPSTREAM", &service)]);
        for path in ["/docs/", "/", "/admin", "/orders/1/events"] {
            let answer = edge.answer(&format!("GET {path}"), "");
            for line in own {
                let (name, _) = line.split_once(':').unwrap();
                let name = format!("\r\n{}:", name.to_lowercase());
                assert_eq!(answer.matches(&name).count(), 1, "{path}: {answer}");
                assert!(answer.contains(&line.to_lowercase()), "{path}: {answer}");
            }
        }
    }

    #[test]
    fn where_the_storefront_is_away_a_page_says_so_and_the_api_goes_on_with_problem_documents() {
        let edge = Alone::start(&[("CORS_ORIGINS", "https://shop.example.com")]);
        for path in ["/", "/orders/1/events", "/admin/imports", "/apiary"] {
            let answer = edge.answer(&format!("GET {path}"), "Origin: https://shop.example.com\r\n");
            assert!(answer.starts_with("http/1.1 503"), "{path}: {answer}");
            assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"), "{path}: {answer}");
            assert!(answer.contains("<h1>the shop is away for a moment</h1>"), "{path}: {answer}");
            assert!(answer.contains("retry-after: 1\r\n"), "{path}: {answer}");
            assert!(!answer.contains("access-control"), "{path}: {answer}");
        }
        for path in ["/api", "/api/v2", "/api/v1/meow"] {
            let answer = edge.answer(&format!("GET {path}"), "");
            assert!(answer.starts_with("http/1.1 404"), "{path}: {answer}");
            assert!(answer.contains("content-type: application/problem+json\r\n"), "{path}: {answer}");
        }
    }

    #[test]
    fn names_get_their_values_and_nginx_keeps_its_variables() {
        let values = [("PORT", "8080".to_owned())];
        let text = substitute("# ${OTHER}\nlisten ${PORT}; set $x $uri;", &values).unwrap();
        assert_eq!(text, "listen 8080; set $x $uri;\n");
        assert!(substitute("listen ${OTHER};", &values).is_err());
    }

    #[test]
    fn each_replica_is_a_server_of_its_services_group() {
        let values = [("UP", replicas(&[81, 82]))];
        let text = substitute("server ${UP};", &values).unwrap();
        assert_eq!(text, "server 127.0.0.1:81 max_fails=0; server 127.0.0.1:82 max_fails=0;\n");
    }
}
