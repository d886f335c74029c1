//! Orders as their readers see them: staff see whose they are, too.

use std::collections::HashMap;

use identity::User;
use order_core::ids::UserId;
use service::extract::Json;
use service::page::Page;

use super::orders::viewer;
use crate::clients::user::Users;
use crate::order::{Customer, Order, View};

#[derive(Clone)]
pub struct Customers(pub Users);

impl Customers {
    pub async fn one(&self, user: User, order: Order) -> Json<View> {
        let known = self.of(user, std::slice::from_ref(&order)).await;
        Json(order.view(viewer(user)).of(&known))
    }

    pub async fn show(&self, user: User, page: Page<Order>) -> Page<View> {
        let known = self.of(user, &page.items).await;
        page.map(|order| order.view(viewer(user)).of(&known))
    }

    /// Who placed these orders, as far as the caller may know. Without an answer of the user service the
    /// order is shown without it.
    async fn of(&self, user: User, orders: &[Order]) -> HashMap<UserId, Customer> {
        if !user.is_staff() || orders.is_empty() {
            return HashMap::new();
        }
        let mut ids: Vec<UserId> = orders.iter().map(|order| order.user_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let known = self.0.customers(&ids).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "orders.user_away");
            Vec::new()
        });
        known.into_iter().map(|one| (one.id, one)).collect()
    }
}
