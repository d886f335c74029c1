//! The calls between services: every method of the contracts, by everybody who may not make it.

use std::time::Duration;

use jsonwebtoken::EncodingKey;
use prost::Message;
use prost_types::FileDescriptorSet;
use proto::product::v1 as product;
use proto::user::v1 as user;
use serde_json::json;
use system_tests::{Shop, send};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::tokens::{Mint, now, service_token};
use super::world::World;

const TYPE: &str = "dockside-service+jwt";

/// Package and path of every method.
fn methods() -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((file.package().to_owned(), path));
            }
        }
    }
    methods
}

async fn call<M, R>(channel: &Channel, path: &str, message: M, token: Option<&str>) -> Result<R, Status>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(5));
    if let Some(token) = token {
        let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path = path.parse().unwrap();
    client.unary(request, path, ProstCodec::<M, R>::default()).await.map(|answer| answer.into_inner())
}

impl World<'_> {
    /// Makes a call that would learn or change something of mine; what it says, as text.
    async fn make(&self, channel: &Channel, path: &str, token: Option<&str>) -> Result<String, Status> {
        let orders = || self.orders.to_vec();
        match path {
            "/dockside.user.v1.UserService/GetAddress" => {
                let message =
                    user::GetAddressRequest { user_id: self.me.id.clone(), address_id: self.address.clone() };
                call::<_, user::GetAddressResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            "/dockside.user.v1.UserService/GetCustomers" => {
                let message = user::GetCustomersRequest { user_ids: vec![self.me.id.clone()], email: None };
                call::<_, user::GetCustomersResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            "/dockside.product.v1.ProductService/GetProducts" => {
                let message = product::GetProductsRequest { product_ids: vec![self.product.clone()] };
                call::<_, product::GetProductsResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            "/dockside.product.v1.ProductService/Reserve" => {
                let line = product::Line { product_id: self.product.clone(), quantity: 7 };
                // An order of nobody: it would hold units of the product that `seen` shows.
                let order_id = self.address.clone();
                let message = product::ReserveRequest {
                    reservations: vec![product::Reservation { order_id, lines: vec![line] }],
                };
                call::<_, product::ReserveResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            "/dockside.product.v1.ProductService/Commit" => {
                let message = product::CommitRequest { order_ids: orders() };
                call::<_, product::CommitResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            "/dockside.product.v1.ProductService/Release" => {
                let order_ids = vec![self.address.clone()];
                let message = product::ReleaseRequest { order_ids };
                call::<_, product::ReleaseResponse>(channel, path, message, token)
                    .await
                    .map(|answer| format!("{answer:?}"))
            }
            unknown => {
                panic!("{unknown} has no row in access/calls.rs: how is it called, and on what of mine?")
            }
        }
    }
}

/// For a call to `audience`, each wrong in one way.
fn wrong(world: &World<'_>, key: &EncodingKey, audience: &str) -> Vec<(&'static str, String)> {
    let other = if audience == "user" { "product" } else { "user" };
    let signed = |change: serde_json::Value| {
        let mut claims = json!({"aud": audience});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        service_token(key, TYPE, &claims)
    };
    let stranger = Mint::of_a_stranger("order");
    let claims = json!({"iss": "order", "aud": audience, "sub": "order", "exp": now() + 60});
    vec![
        ("something malformed", "x.y.z".to_owned()),
        ("a user's access token", world.me.token.clone()),
        ("an admin's access token", world.admin.clone()),
        ("a refresh token", world.me.refresh.clone()),
        ("a token for another service", signed(json!({"aud": other}))),
        ("a token for no service", signed(json!({"aud": null}))),
        ("a token for clients", signed(json!({"aud": "dockside-api"}))),
        ("a token that has run out", signed(json!({"exp": now() - 60}))),
        ("a token that never runs out", signed(json!({"exp": null}))),
        ("a token that is not yet good", signed(json!({"nbf": now() + 300}))),
        ("a token of another type", service_token(key, "at+jwt", &json!({"aud": audience}))),
        ("a service that nobody trusts", signed(json!({"iss": "mallory"}))),
        ("a service under another's name", signed(json!({"iss": "product", "sub": "product"}))),
        ("an unknown key under a trusted name", stranger.sign(TYPE, &claims)),
    ]
}

#[tokio::test]
async fn p9_every_call_is_refused_to_all_but_the_service_that_makes_it() {
    let shop = Shop::open().await;
    let world = World::new(&shop).await;
    let key = Mint::of_order(&shop);
    let before = world.seen().await;
    let mut cells = 0;
    let methods = methods();
    for (package, path) in &methods {
        // dockside.<service>.v1
        let service = package.split('.').nth(1).unwrap();
        let channel = Endpoint::from_shared(shop.grpc(service)).unwrap().connect().await.unwrap();
        let wrong = wrong(&world, &key, service);
        let tokens = wrong.iter().map(|(what, token)| (*what, Some(token.as_str())));
        for (what, token) in tokens.chain([("nobody", None)]) {
            let refused = world.make(&channel, path, token).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{path} by {what}: {refused:?}");
            cells += 1;
        }
        assert_eq!(world.seen().await, before, "after all those who may not call {path}");
    }
    // Each of those was a good call: order may make it.
    for (package, path) in &methods {
        let service = package.split('.').nth(1).unwrap();
        let channel = Endpoint::from_shared(shop.grpc(service)).unwrap().connect().await.unwrap();
        let token = service_token(&key, TYPE, &json!({"aud": service}));
        let answer = world.make(&channel, path, Some(&token)).await;
        assert!(answer.is_ok(), "{path}: {answer:?}");
        cells += 1;
        if path.ends_with("/Reserve") {
            let request = shop.request(reqwest::Method::GET, &format!("/products/{}", world.product));
            let product = send(request).await.unwrap().body;
            assert_ne!(
                Some(&product),
                before.iter().find(|(path, _)| path.starts_with("/products/")).map(|(_, body)| body)
            );
        }
    }
    println!("{} methods, {cells} cells", methods.len());
}
