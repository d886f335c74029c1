//! The gRPC port is up. Its calls are tested with what they read: see addresses.rs.

use crate::app::App;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn the_grpc_port_says_that_the_service_serves() {
    let app = App::start().await;
    let channel = service::grpc::channel(&format!("http://{}", app.addresses.grpc)).unwrap();
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}
