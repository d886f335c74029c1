//! The saga's rule and an order's total: what is computed for each order.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use money::{Currency, Money};
use order_core::order::{Item, Items};
use order_core::saga::{Input, IntentStatus, State};
use uuid::Uuid;

fn rule(criterion: &mut Criterion) {
    let inputs = [
        Input::Created("pi_3Qx1Y2".to_owned().into()),
        Input::IntentReported(IntentStatus::Authorised),
        Input::StockCommitted,
        Input::IntentReported(IntentStatus::Captured),
    ];
    criterion.bench_function("saga: an order from placed to confirmed", |b| {
        b.iter(|| {
            let mut state = State::placed(black_box(Money::new(4200, Currency::EUR)));
            for input in &inputs {
                state = state.apply(input.clone(), Uuid::nil().into()).unwrap().0;
            }
            state
        });
    });
}

fn price(criterion: &mut Criterion) {
    let item = |n: i64| Item {
        product_id: Uuid::from_u128(7).into(),
        sku: format!("SKU-{n}"),
        name: "A product".to_owned(),
        unit_price: Money::new(100 + n, Currency::EUR),
        quantity: 3u32.try_into().unwrap(),
    };
    let items: Vec<Item> = (0..100).map(item).collect();
    criterion.bench_function("total: 100 lines", |b| {
        let total = |items| Items::new(black_box(items)).unwrap();
        b.iter_batched(|| items.clone(), total, BatchSize::SmallInput);
    });
}

criterion_group!(benches, rule, price);
criterion_main!(benches);
