//! The gRPC port is up, and says who is who. Addresses are tested with what they are: see addresses.rs.

use crate::app::App;
use proto::user::v1::user_service_client::UserServiceClient;
use proto::user::v1::{Customer, GetCustomersRequest};
use service::peer::{self, ServiceKey};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

#[tokio::test]
async fn the_grpc_port_says_that_the_service_serves() {
    let app = App::start().await;
    let channel = service::grpc::channel(&format!("http://{}", app.addresses.grpc)).unwrap();
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn the_order_service_learns_who_its_customers_are_and_nobody_else_does() {
    let keys = [peer::generate().unwrap(), peer::generate().unwrap()];
    let trusted = format!("--trusted-callers=order={},product={}", keys[0].public_key, keys[1].public_key);
    let database = testing::database("users").await;
    let app = App::start_with(&database, crate::app::NO_BROKER, "dockside", &[&trusted]).await;
    let mut known = Vec::new();
    for email in ["Ada@bücher.example", "eve@example.com"] {
        let token = app.signed_in(email).await.access;
        let me = app.get("/api/v1/me", &token).await.body;
        let text = |field: &str| me[field].as_str().unwrap().to_owned();
        known.push(Customer { user_id: text("id"), email: text("email"), name: text("name") });
    }
    let client =
        UserServiceClient::new(service::grpc::channel(&format!("http://{}", app.addresses.grpc)).unwrap());
    let ask = async |name: &'static str, index: usize, user_ids: Vec<String>, email: Option<&str>| {
        let mut request = Request::new(GetCustomersRequest { user_ids, email: email.map(str::to_owned) });
        let key = ServiceKey::from_pem(name, &keys[index].private_key_pem).unwrap();
        let token = format!("Bearer {}", key.token("user").unwrap());
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        let answer = client.clone().get_customers(request).await.map_err(|status| status.code())?;
        let mut customers = answer.into_inner().customers;
        customers.sort_by(|one, other| one.email.cmp(&other.email));
        Ok::<_, Code>(customers)
    };
    let ids: Vec<String> = known.iter().map(|one| one.user_id.clone()).collect();
    let with_a_stranger = [ids.clone(), vec![Uuid::now_v7().to_string()]].concat();
    assert_eq!(ask("order", 0, with_a_stranger, None).await, Ok(known.clone()));
    for email in ["ada@BÜCHER.example", " ada@xn--bcher-kva.example"] {
        assert_eq!(ask("order", 0, vec![], Some(email)).await, Ok(known[..1].to_vec()), "{email}");
    }
    assert_eq!(ask("order", 0, vec![], Some("nobody@example.com")).await, Ok(vec![]));
    assert_eq!(ask("order", 0, vec![], Some("ada")).await, Err(Code::InvalidArgument));
    assert_eq!(ask("order", 0, vec!["1".to_owned()], None).await, Err(Code::InvalidArgument));
    assert_eq!(ask("order", 0, vec![ids[0].clone(); 101], None).await, Err(Code::InvalidArgument));
    assert_eq!(ask("product", 1, ids, None).await, Err(Code::PermissionDenied));
}
