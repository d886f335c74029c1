//! `/admin/customers`: accounts, for admins alone.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::address;
use super::types::Managed;
use crate::api::Refused;
use crate::api::types::Page;
use crate::app::App;
use crate::form::{Form, sentence};
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new().route("/admin/customers", get(list)).route("/admin/customers/{id}", get(page).post(change))
}

#[derive(Template)]
#[template(path = "admin/customers.html")]
struct Customers {
    p: Frame,
    email: String,
    customers: Vec<Managed>,
    next: Option<String>,
    first: Option<String>,
}

async fn list(visitor: Visitor) -> Shown {
    let email = visitor.query_has("email").unwrap_or_default().trim().to_owned();
    let cursor = visitor.query_has("cursor").unwrap_or_default();
    let mut query = vec![("limit", "20"), ("email", &email), ("cursor", &cursor)];
    query.retain(|(_, value)| !value.is_empty());
    let page: Page<Managed> = visitor.signed(Method::GET, &["users"]).query(&query).get().await?;
    let here = |cursor: &str| address("/admin/customers", &[("email", &email), ("cursor", cursor)]);
    let (next, first) = (page.next_cursor.map(|cursor| here(&cursor)), here(""));
    let p = visitor.frame(&visitor.lang().text("admin-customers", &[]));
    let first = Some(first).filter(|_| !cursor.is_empty());
    Ok(personal(&Customers { p, email, customers: page.items, next, first }))
}

#[derive(Template)]
#[template(path = "admin/customer.html")]
struct Customer {
    p: Frame,
    customer: Managed,
    problem: Option<String>,
}

impl Customer {
    fn roles(&self) -> [&'static str; 3] {
        ["customer", "staff", "admin"]
    }
}

async fn view(visitor: &Visitor, id: Uuid) -> Result<Customer, Refused> {
    let customer: Managed = visitor.signed(Method::GET, &["users", &id.to_string()]).get().await?;
    Ok(Customer { p: visitor.frame(&customer.account.name), customer, problem: None })
}

async fn page(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    Ok(personal(&view(&visitor, id).await?))
}

/// What was changed in the form, and nothing else: another admin may have changed the rest since it was shown.
fn changes(form: &Form) -> Value {
    let mut body = json!({});
    if form.get("role") != form.get("was-role") {
        body["role"] = json!(form.get("role"));
    }
    let disabled = form.get("disabled") == "yes";
    if disabled != (form.get("was-disabled") == "yes") {
        body["disabled"] = json!(disabled);
    }
    body
}

async fn change(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let call = visitor.signed(Method::PATCH, &["users", &id.to_string()]);
    let why = match call.json(&changes(&form)).done().await {
        Ok(_) => return Ok(went(&format!("/admin/customers/{id}"), "customer-changed")),
        Err(Refused::Problem(problem)) if problem.status != 404 && problem.code != "forbidden" => {
            sentence(visitor.lang(), &problem)
        }
        Err(Refused::Away) => visitor.lang().text("error-outcome-unknown", &[]),
        Err(other) => return Err(other.into()),
    };
    let mut page = view(&visitor, id).await?;
    page.problem = Some(why);
    Ok(unprocessable(&page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_is_old_does_not_take_back_what_another_admin_did() {
        let changed = |form: &str| changes(&Form::parse(form.as_bytes()));
        assert_eq!(changed("role=customer&was-role=customer&was-disabled="), json!({}));
        assert_eq!(changed("role=staff&was-role=customer&was-disabled="), json!({"role": "staff"}));
        let disabled = "role=staff&was-role=staff&was-disabled=&disabled=yes";
        assert_eq!(changed(disabled), json!({"disabled": true}));
        assert_eq!(changed("role=staff&was-role=staff&was-disabled=yes"), json!({"disabled": false}));
    }
}
