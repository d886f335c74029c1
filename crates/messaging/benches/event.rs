//! An event's body is encoded once and decoded by each consumer.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message;
use proto::order::v1::{Line, Order, OrderPlaced};
use uuid::Uuid;

fn event(criterion: &mut Criterion) {
    let id = |n: u128| Uuid::from_u128(n << 64 | 7).to_string();
    let line = |n: u32| Line {
        product_id: id(u128::from(n)),
        sku: format!("SKU-{n}"),
        name: "A product".to_owned(),
        unit_price: 1999,
        quantity: 1,
    };
    let order = Order {
        id: id(1),
        user_id: id(2),
        lines: (0..3).map(line).collect(),
        total: 5997,
        currency: "EUR".to_owned(),
        number: "F7K2M-9XHRR".to_owned(),
    };
    let placed = OrderPlaced { order: Some(order) };
    criterion
        .bench_function("event: order.placed encoded", |b| b.iter(|| black_box(&placed).encode_to_vec()));
    let bytes = placed.encode_to_vec();
    criterion.bench_function("event: order.placed decoded", |b| {
        b.iter(|| OrderPlaced::decode(black_box(bytes.as_slice())).unwrap());
    });
}

criterion_group!(benches, event);
criterion_main!(benches);
