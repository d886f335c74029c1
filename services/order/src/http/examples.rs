//! What the OpenAPI document shows as examples.

use serde_json::{Value, json};

const ORDER: &str = "018f5c3e-7a00-7000-8000-000000000001";
const PRODUCT: &str = "018f5c3e-7a00-7000-8000-000000000002";
const REFUND: &str = "018f5c3e-7a00-7000-8000-000000000003";
const NOTE: &str = "018f5c3e-7a00-7000-8000-000000000006";
const STAFF: &str = "018f5c3e-7a00-7000-8000-000000000007";
const PARCEL: &str = "018f5c3e-7a00-7000-8000-000000000005";
const CUSTOMER: &str = "018f5c3e-7a00-7000-8000-000000000004";
const PLACED: &str = "2026-11-23T09:00:00Z";
const CHANGED: &str = "2026-11-23T09:00:02Z";

fn eur(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

pub fn address() -> Value {
    json!({"name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"})
}

pub fn cart() -> Value {
    let item = json!({"product_id": PRODUCT, "name": "Oilskin jacket", "unit_price": eur(1999), "quantity": 2, "available": 40});
    json!({"items": [item], "total": eur(3998)})
}

pub fn request() -> Value {
    let items = json!([{"product_id": PRODUCT, "quantity": 2}]);
    json!({"items": items, "shipping_address": address(), "payment_method": "pm_card_visa"})
}

/// An order of two jackets in this status, as its owner sees it, or staff once it is shipped; when cancelled, then
/// by its owner and before it was paid.
pub fn order(status: &str) -> Value {
    let steps: &[&str] = match status {
        "pending" => &["pending"],
        "cancelled" => &["pending", "cancelled"],
        "confirmed" => &["pending", "confirmed"],
        "shipped" => &["pending", "confirmed", "shipped"],
        _ => &["pending", "confirmed", "shipped", "delivered"],
    };
    let at = |step: &str| if step == "pending" { PLACED } else { CHANGED };
    let history: Vec<Value> = steps.iter().map(|step| json!({"status": step, "at": at(step)})).collect();
    let payment = match status {
        "pending" => "pending",
        "cancelled" => "voided",
        _ => "captured",
    };
    let next: &[&str] = match status {
        "pending" | "confirmed" => &["cancel"],
        "shipped" => &["deliver", "refund"],
        "delivered" => &["refund"],
        _ => &[],
    };
    let parcel = steps.contains(&"shipped");
    let tracking = json!({"carrier": "Royal Mail", "tracking_number": "RM123456785GB"});
    let line = json!({"product_id": PRODUCT, "quantity": 2});
    let sent = json!({"id": PARCEL, "method": "carrier", "tracking": tracking, "items": [line], "shipped_at": CHANGED, "former": []});
    let parcels: Vec<Value> = parcel.then_some(sent).into_iter().collect();
    let mut order = json!({
        "id": ORDER,
        "number": "F7K2M-9XHRR",
        "status": status,
        "cancel_reason": (status == "cancelled").then_some("customer"),
        "items": [{
            "product_id": PRODUCT,
            "sku": "JACKET-M",
            "name": "Oilskin jacket",
            "unit_price": eur(1999),
            "quantity": 2,
            "line_total": eur(3998),
        }],
        "total": eur(3998),
        "refunded": eur(0),
        "shipping_address": address(),
        "payment": {"status": payment, "method": "pm_card_visa", "decline_reason": null},
        "tracking": parcel.then_some(tracking),
        "parcels": parcels,
        "next_actions": next,
        "placed_at": PLACED,
        "updated_at": at(status),
        "history": history,
    });
    if parcel {
        order["customer"] = json!({"id": CUSTOMER, "email": "ada@example.com", "name": "Ada Lovelace"});
    }
    order
}

pub fn ticket() -> Value {
    json!({"ticket": "kq0YVs1Hn3zGm2w0Jb6o8TQvLxEr5cZ7uPfAiD4sNgU", "expires_at": CHANGED})
}

/// One event of an order's stream.
pub fn event() -> String {
    format!("id: 1\nevent: status\ndata: {}\n\n", order("pending"))
}

pub fn saga() -> Value {
    let step = |at: &str, status: &str, payment: &str, version: i64, event: &str| json!({"at": at, "kind": "status", "status": status, "payment": payment, "version": version, "event": event});
    json!({
        "order_id": ORDER,
        "phase": "confirmed",
        "intent_id": "pi_3QexampleB2eZvKYlo2C",
        "pending_cancel": null,
        "next_at": null,
        "attempts": 0,
        "lease_until": null,
        "deadline_at": "2026-11-23T09:05:00Z",
        "waiting_since": null,
        "reports": 0,
        "reports_unread": 0,
        "steps": [
            {"at": PLACED, "kind": "requested", "event": null},
            step(PLACED, "pending", "pending", 1, "order.placed.v1"),
            step(CHANGED, "confirmed", "captured", 5, "order.confirmed.v1"),
        ],
        "waiting_events": [],
    })
}

pub fn note() -> Value {
    json!({"id": NOTE, "author": STAFF, "text": "Wants it before Friday.", "created_at": CHANGED})
}

pub fn refund_request() -> Value {
    json!({"amount": eur(1999), "reason": "One was torn.", "restock": [{"product_id": PRODUCT, "quantity": 1}]})
}

pub fn refund(status: &str) -> Value {
    let mut refund = refund_request();
    refund["id"] = REFUND.into();
    refund["status"] = status.into();
    refund["created_at"] = CHANGED.into();
    refund
}
