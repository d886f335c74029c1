//! `/admin/orders`: everybody's orders, and the one that staff look for.

use axum::extract::State;
use identity::Staff;
use order_core::ids::UserId;
use serde::Deserialize;
use service::db::Pool;
use service::extract::{Json, Query};
use service::money::Currency;
use service::page::{Page, PageParams, PageQuery};
use service::validate::Invalid;
use service::{FieldError, Problem};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::customers::Customers;
use super::{App, examples, orders};
use crate::order::search::Search;
use crate::order::search_store;
use crate::order::{OrderNumber, Status, View, store};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_all))
}

#[derive(Deserialize)]
struct AdminQuery {
    #[serde(flatten)]
    page: PageQuery,
    status: Option<String>,
    user_id: Option<String>,
    number: Option<String>,
    email: Option<String>,
    q: Option<String>,
    placed_from: Option<String>,
    placed_to: Option<String>,
    min_total: Option<String>,
    max_total: Option<String>,
    currency: Option<String>,
}

/// List everybody's orders
///
/// Newest first. Of several filters all have to fit.
#[utoipa::path(
    get, path = "/api/v1/admin/orders", operation_id = "list_all_orders", tag = "orders",
    params(
        PageParams,
        ("status" = Option<Status>, Query, description = "Only orders that are in this status."),
        ("user_id" = inline(Option<UserId>), Query, description = "Only orders of this user."),
        ("number" = Option<String>, Query, description = "The order with this number, typed with or without dash and capitals.", pattern = "^[2-9FHJKMPRTWXYfhjkmprtwxy]{5}-?[2-9FHJKMPRTWXYfhjkmprtwxy]{5}$"),
        ("email" = Option<String>, Query, description = "Only orders of the account with this e-mail address.", min_length = 1, max_length = 254, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"),
        ("q" = Option<String>, Query, description = "Words of the name on the parcel, each at least begun, or the parcel's tracking number.", min_length = 1, max_length = 100, pattern = "[^\\s\\u0000-\\u001f\\u007f-\\u009f]"),
        ("placed_from" = Option<String>, Query, description = "Only orders placed then or later: RFC 3339, or a date in UTC.", pattern = "^[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$"),
        ("placed_to" = Option<String>, Query, description = "Only orders placed before that; of a date, on that day too.", pattern = "^[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$"),
        ("min_total" = Option<i64>, Query, description = "Only orders that come to this or more, in minor units of `currency`.", minimum = 0),
        ("max_total" = Option<i64>, Query, description = "Only orders that come to this or less, in minor units of `currency`.", minimum = 0),
        ("currency" = Option<String>, Query, description = "Only orders in this currency, ISO 4217. Needed with `min_total` and `max_total`.", pattern = "^[A-Z]{3}$"),
    ),
    responses((status = 200, description = "A page of orders.", body = Page<View>, example = json!({"items": [examples::order("shipped")], "next_cursor": null}))),
    security(("token" = ["staff"])),
)]
async fn list_all(
    Staff(staff): Staff,
    State(pool): State<Pool>,
    State(customers): State<Customers>,
    Query(query): Query<AdminQuery>,
) -> Result<Json<Page<View>>, Problem> {
    let (limit, before) = (query.page.limit()?, query.page.after()?);
    let (mut search, email) = query.parsed()?;
    if let Some(email) = email {
        let found = customers.0.with_email(&email).await?;
        let found: Vec<UserId> = found.into_iter().map(|one| one.id).collect();
        let named = search.users.take();
        search.users = Some(match named {
            Some(named) => named.into_iter().filter(|id| found.contains(id)).collect(),
            None => found,
        });
    }
    let ids = if search.is_plain() {
        let user = search.users.as_ref().and_then(|users| users.first().copied());
        store::ids(&mut *pool.acquire().await?, user, search.status, before, limit + 1).await?
    } else {
        search_store::run(&pool, &search, before, limit + 1).await?
    };
    let orders = store::load(&mut *pool.acquire().await?, &ids).await?;
    Ok(Json(customers.show(staff, Page::new(orders, limit, |order| order.id)).await))
}

impl AdminQuery {
    /// What is looked for, and the address of whose orders; 422 with all that can't be.
    fn parsed(self) -> Result<(Search, Option<String>), Problem> {
        let mut errors = Vec::new();
        let mut wrong = |at: &str, code: &str, detail: &str| errors.push(FieldError::new(at, code, detail));
        let mut total = |at: &str, text: Option<String>| {
            let amount = text.as_ref().map(|text| text.parse().ok().filter(|amount: &i64| *amount >= 0));
            if amount == Some(None) {
                wrong(at, "invalid_value", "An amount in minor units, e.g. 1999.");
            }
            amount.flatten()
        };
        let min_total = total("/min_total", self.min_total);
        let max_total = total("/max_total", self.max_total);
        if min_total.zip(max_total).is_some_and(|(min, max)| min > max) {
            wrong("/min_total", "out_of_range", "Not above max_total.");
        }
        let users = self.user_id.and_then(|id| match id.parse() {
            Ok(id) => Some(vec![id]),
            Err(_) => {
                wrong("/user_id", "invalid_value", "This is not a UUID.");
                None
            }
        });
        let number = self.number.and_then(|typed| match typed.parse::<OrderNumber>() {
            Ok(number) => Some(number),
            Err(why) => {
                wrong("/number", "invalid_number", &format!("This is no order's number: {why}."));
                None
            }
        });
        let currency = self.currency.and_then(|code| {
            let known = Currency::from_code(&code);
            if known.is_none() {
                wrong("/currency", "invalid_value", "This is not an ISO 4217 currency code, like EUR.");
            }
            known
        });
        if (min_total.is_some() || max_total.is_some()) && currency.is_none() {
            wrong("/currency", "missing_field", "Name the currency of the amount.");
        }
        let mut moment = |at: &str, text: Option<String>, day_after: bool| {
            let read = text.as_deref().map(|text| moment(text, day_after));
            if read == Some(None) {
                wrong(at, "invalid_value", "A time as in 2026-11-29T12:00:00Z, or a date as in 2026-11-29.");
            }
            read.flatten()
        };
        let placed_from = moment("/placed_from", self.placed_from, false);
        let placed_to = moment("/placed_to", self.placed_to, true);
        let status =
            self.status.and_then(|word| orders::status(&word).map_err(|error| errors.push(error)).ok());
        let mut invalid = Invalid::new();
        let q = self.q.and_then(|q| invalid.text("/q", q, 1, 100));
        let email = self.email.and_then(|email| invalid.text("/email", email.trim().to_owned(), 1, 254));
        for FieldError { pointer, code, detail } in errors {
            invalid.push(pointer, &code, detail);
        }
        invalid.check()?;
        let search =
            Search { users, status, number, q, currency, min_total, max_total, placed_from, placed_to };
        Ok((search, email))
    }
}

/// A time, or the beginning of a day; or of the day after.
fn moment(text: &str, day_after: bool) -> Option<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time);
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    let day = if day_after { day.next_day()? } else { day };
    Some(day.midnight().assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_date_is_all_of_its_day() {
        assert_eq!(moment("2026-02-28", false), Some(datetime!(2026-02-28 0:00 UTC)));
        assert_eq!(moment("2026-02-28", true), Some(datetime!(2026-03-01 0:00 UTC)));
        assert_eq!(moment("2026-02-28T10:00:00+02:00", true), Some(datetime!(2026-02-28 8:00 UTC)));
        for bad in ["", "2026", "2026-02-30", "28.02.2026", "2026-02-28T10:00", "2026-W09-1", "20260228"] {
            assert_eq!(moment(bad, false), None, "{bad}");
        }
    }
}
