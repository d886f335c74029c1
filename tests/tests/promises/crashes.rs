//! P1: a 2xx on place-order survives the death of any one process.

use std::sync::Arc;

use system_tests::Shop;
use system_tests::failpoints::{Fault, walk};

#[tokio::test]
async fn p1_no_order_is_lost_doubled_or_stuck_by_a_crash_at_any_failpoint() {
    walk(&Arc::new(Shop::open().await), &[Fault::Crash], 1, |line| println!("{line}")).await;
}

#[tokio::test]
async fn p1_no_order_is_lost_doubled_or_stuck_by_a_failure_at_any_failpoint() {
    walk(&Arc::new(Shop::open().await), &[Fault::Fail], 1, |line| println!("{line}")).await;
}
