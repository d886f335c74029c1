//! Disputes: what a bank takes back after a payment.

use crate::support::{Api, Sandbox, id};
use reqwest::StatusCode;
use serde_json::Value;

async fn disputed(api: &Api, card: &str) -> (String, Value) {
    let intent = api.captured(card).await;
    let path = format!("/v1/disputes?payment_intent={}", id(&intent));
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    loop {
        let (_, _, list) = api.get(&path).await;
        if let Some(dispute) = list["data"].get(0) {
            return (intent, dispute.clone());
        }
        assert!(std::time::Instant::now() < deadline, "no dispute");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_dispute_withdraws_the_money_and_evidence_decides_it() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 10).await;
    let api = &sandbox.client;
    for (evidence, status, refundable) in
        [("winning_evidence", "won", StatusCode::OK), ("losing_evidence", "lost", StatusCode::BAD_REQUEST)]
    {
        let (intent, dispute) = disputed(api, "pm_card_createDispute").await;
        assert_eq!(
            (&dispute["status"], &dispute["reason"], &dispute["amount"]),
            (&"needs_response".into(), &"fraudulent".into(), &2500.into())
        );
        let refund = [("payment_intent", id(&intent))];
        let (refused, _, body) = api.post("/v1/refunds", &refund).await;
        assert_eq!((refused, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &"charge_disputed".into()));

        let path = format!("/v1/disputes/{}", dispute["id"].as_str().unwrap());
        let (_, _, reviewed) =
            api.post(&path, &[("evidence[uncategorized_text]", "It was delivered.")]).await;
        assert_eq!(reviewed["status"], "under_review");
        let (_, _, ended) = api.post(&path, &[("evidence[uncategorized_text]", evidence)]).await;
        assert_eq!(ended["status"], status);
        assert_eq!(api.get(&path).await.2, ended);
        for again in [path.clone(), format!("{path}/close")] {
            assert_eq!(api.post(&again, &[]).await.0, StatusCode::BAD_REQUEST, "it is over");
        }
        let (again, _, body) = api.post("/v1/refunds", &refund).await;
        assert_eq!(again, refundable, "{body}");
    }
    let (_, _, ledger) = api.get("/ledger?order_id=o1").await;
    assert_eq!(ledger["items"][0]["disputed"], 2500);
    assert_eq!(api.until_events("charge.dispute.closed", 2).await.len(), 2);
    assert_eq!(api.until_events("charge.dispute.funds_withdrawn", 2).await.len(), 2);
    let back = api.until_events("charge.dispute.funds_reinstated", 1).await;
    assert_eq!((back.len(), &back[0]["data"]["object"]["object"]), (1, &"dispute".into()));
}

#[tokio::test]
async fn a_dispute_can_be_accepted_and_an_inquiry_withdraws_nothing() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 10).await;
    let api = &sandbox.client;
    let (_, dispute) = disputed(api, "pm_card_createDisputeProductNotReceived").await;
    assert_eq!(dispute["reason"], "product_not_received");
    let close = format!("/v1/disputes/{}/close", dispute["id"].as_str().unwrap());
    assert_eq!(api.post(&close, &[]).await.2["status"], "lost");

    let (intent, inquiry) = disputed(api, "pm_card_createDisputeInquiry").await;
    assert_eq!(inquiry["status"], "warning_needs_response");
    assert_eq!(api.post("/v1/refunds", &[("payment_intent", id(&intent))]).await.0, StatusCode::OK);
    assert_eq!(api.until_events("charge.dispute.created", 2).await.len(), 2);
    assert_eq!(api.until_events("charge.dispute.funds_withdrawn", 1).await.len(), 1);
    assert_eq!(api.get("/v1/disputes/du_none").await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.post("/v1/disputes/du_none/close", &[]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn disputes_survive_a_restart_and_those_that_were_to_come_do_come() {
    let mut sandbox = Sandbox::with(|config| config.slow_millis = 10).await;
    let (_, before) = disputed(&sandbox.client, "pm_card_createDispute").await;
    let path = format!("/v1/disputes/{}", before["id"].as_str().unwrap());
    sandbox.config.slow_millis = 60_000;
    let mut sandbox = sandbox.restart().await;
    assert_eq!(sandbox.client.get(&path).await.2, before);
    sandbox.client.captured("pm_card_createDispute").await;
    assert_eq!(sandbox.client.get("/v1/disputes").await.2["data"].as_array().unwrap().len(), 1);
    sandbox.config.slow_millis = 10;
    let sandbox = sandbox.restart().await;
    sandbox.client.until_events("charge.dispute.created", 2).await;
}
