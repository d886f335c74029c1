//! P9: no access across users: matrices made of the documents, each operation and each call by everybody who may not.

mod calls;
mod rows;
mod stores;
mod tokens;
mod ways_in;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::header::CACHE_CONTROL;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use system_tests::{Answer, Shop, send};

use rows::Row;
use world::World;

/// Who may use an operation, as the document has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Anybody,
    SignedIn,
    Staff,
    Admin,
}

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    /// Method and path.
    name: String,
    is_for: For,
    /// The documented statuses.
    statuses: BTreeSet<u16>,
}

impl Operation {
    /// The user service has sessions and accounts at hand: there a change counts at once.
    fn knows_sessions(&self) -> bool {
        let own = ["/api/v1/me", "/api/v1/users", "/api/v1/audit/users"];
        own.iter().any(|path| self.path.starts_with(path))
    }
}

async fn operations(shop: &Shop) -> Vec<Operation> {
    let document = send(shop.request(Method::GET, "/openapi.json")).await.unwrap().body;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            // Without one an operation would be open by oversight.
            let is_for = match operation["security"].to_string().as_str() {
                "[{}]" => For::Anybody,
                r#"[{"token":[]}]"# => For::SignedIn,
                r#"[{"token":["staff"]}]"# => For::Staff,
                r#"[{"token":["admin"]}]"# => For::Admin,
                other => panic!("{name} does not say who may use it: {other}"),
            };
            let statuses = operation["responses"].as_object().unwrap().keys();
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                is_for,
                statuses: statuses.map(|status| status.parse().unwrap()).collect(),
                name,
            });
        }
    }
    operations
}

/// Asks as a row says; the answer must be a documented one, and no cache's if it was asked for with a token.
async fn ask(client: &Client, shop: &Shop, operation: &Operation, row: Row, token: Option<&str>) -> Answer {
    let request = client.request(operation.method.clone(), format!("{}{}", shop.edge, row.path));
    let request = row.headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    let request = row.body.into_iter().fold(request, |request, bytes| request.body(bytes));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    let response = request.send().await.unwrap_or_else(|error| panic!("{}: {error}", operation.name));
    let (status, headers) = (response.status(), response.headers().clone());
    // A stream of events need not end.
    let endless = headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let text = if endless { String::new() } else { response.text().await.unwrap() };
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    assert!(operation.statuses.contains(&status.as_u16()), "{}: {status} {body}", operation.name);
    if operation.is_for != For::Anybody && token.is_some() {
        assert_eq!(headers[CACHE_CONTROL], "no-store", "{}", operation.name);
    }
    Answer { status, headers, body }
}

/// A client with an address of its own, so that the edge's limits are not what refuses.
fn client(number: usize) -> Client {
    let address = [127, 0, 9, u8::try_from(number + 1).unwrap()];
    Client::builder().local_address(Some(address.into())).timeout(Duration::from_secs(15)).build().unwrap()
}

#[tokio::test]
async fn p9_every_operation_refuses_everybody_who_may_not_use_it_and_nothing_changes() {
    let shop = Shop::open().await;
    let world = World::new(&shop).await;
    let operations = operations(&shop).await;
    let before = world.seen().await;
    let mut cells = 0;
    for (number, operation) in operations.iter().enumerate().filter(|(_, one)| one.is_for != For::Anybody) {
        let client = client(number);
        let (name, is_for) = (&operation.name, operation.is_for);
        let mut refused = async |what: &str, token: Option<&str>, status: u16, code: &str| {
            let answer = ask(&client, &shop, operation, world.row(operation), token).await;
            assert_eq!(answer.problem(), (status, code), "{name} by {what}: {}", answer.body);
            let asks = answer
                .headers
                .get("www-authenticate")
                .is_some_and(|with| with.as_bytes().starts_with(b"Bearer"));
            assert_eq!(asks, status == 401, "{name} by {what}");
            assert!(!world.reveals_mine(&answer.body), "{name} by {what}: {}", answer.body);
            cells += 1;
        };
        refused("nobody", None, 401, "missing_token").await;
        for (what, token) in &world.wrong {
            refused(what, Some(token), 401, "invalid_token").await;
        }
        if operation.knows_sessions() {
            for (what, token) in &world.ended {
                refused(what, Some(token), 401, "invalid_token").await;
            }
        }
        // A role too low; the owner's too, since some things are not for owners.
        let lower: &[(&str, &str)] = match is_for {
            For::Staff => &[("its owner", &world.me.token)],
            For::Admin => &[("its owner", &world.me.token), ("staff", &world.staff)],
            For::Anybody | For::SignedIn => &[],
        };
        for (what, token) in lower {
            refused(what, Some(token), 403, "forbidden").await;
        }
        // Somebody else: does not learn that there is something of mine, and where nothing is, acts for themselves.
        let stranger = world.stranger().await;
        let row = world.row(operation);
        if row.mine {
            refused("another user", Some(&stranger.token), 404, "not_found").await;
            if operation.path.starts_with("/api/v1/me/") {
                refused("staff", Some(&world.staff), 404, "not_found").await;
                refused("an admin", Some(&world.admin), 404, "not_found").await;
            }
        } else if is_for == For::SignedIn {
            let answer = ask(&client, &shop, operation, row, Some(&stranger.token)).await;
            assert!(
                answer.status.is_success() || answer.body["code"] == "cart_empty",
                "{name}: {}",
                answer.body
            );
            assert!(!world.reveals_mine(&answer.body), "{name} shows another user: {}", answer.body);
            cells += 1;
        } else {
            refused("another user", Some(&stranger.token), 403, "forbidden").await;
        }
        assert_eq!(world.seen().await, before, "after all those who may not {name}");
    }

    // Each of those requests was a good one: whoever may make it, can.
    // Last what ends things, and of that last what ends most.
    let ends = |one: &Operation| one.method == Method::DELETE || one.path.ends_with("/password");
    let mut ordered: Vec<&Operation> = operations.iter().collect();
    ordered.sort_by_key(|one| (ends(one), usize::MAX - one.path.len()));
    for operation in ordered {
        let me = match operation.path.as_str() {
            // I sign in by my address again.
            "/api/v1/me/email" => world.stranger().await,
            _ if ends(operation) => world.sign_in(&world.me).await,
            _ => world.me.clone(),
        };
        let token = match operation.is_for {
            For::Anybody => None,
            For::SignedIn => Some(me.token),
            For::Staff => Some(world.staff.clone()),
            For::Admin => Some(world.admin.clone()),
        };
        let row = world.row(operation);
        let answer = ask(&client(operations.len()), &shop, operation, row, token.as_deref()).await;
        assert!(answer.status.is_success(), "{}: {} {}", operation.name, answer.status, answer.body);
        cells += 1;
    }
    let gone = send(shop.request(Method::POST, "/auth/login").json(&world.me.credentials())).await.unwrap();
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED, "the last of them erased me");
    println!("{} operations, {cells} cells", operations.len());
    assert!(cells > operations.len() * 15, "{cells}");
}
