//! Turns errors of use cases into problem documents, in this one place. Those of an Idempotency-Key come from
//! `service::idempotency` as problems already.

use axum::http::StatusCode;
use order_core::ids::ProductId;
use serde_json::json;
use service::{FieldError, Money, Problem};
use tonic::Code;
use uuid::Uuid;

use crate::cart::CartError;
use crate::catalogue::CatalogueError;
use crate::changes::{ChangeError, ReaddressError};
use crate::checkout::{self, CheckoutError};
use crate::clients::user::Unavailable;
use crate::fulfilment::ShipError;
use crate::idempotency::{KeyError, StoredAnswer};
use crate::notes::NoteError;
use crate::order::reads::ReadError;
use crate::order::{Line, MAX_LINES, NoLines, NoTotal};
use crate::refunds::{self, RefundError};
use crate::saga::Refusal;
use crate::saga::applier::NotApplied;

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Reused => {
                let detail = "This Idempotency-Key was used with another body.";
                Self::unprocessable("idempotency_key_reused", detail)
            }
            KeyError::InProgress => {
                let detail = "The first request with this Idempotency-Key is still running.";
                Self::conflict("idempotency_in_progress", detail).with_retry_after(1)
            }
            // The access token is still valid, but its owner is erased.
            KeyError::UserGone => Self::unauthorized("invalid_token", "This account was deleted."),
            KeyError::Store(error) => error.into(),
        }
    }
}

impl From<CheckoutError> for Problem {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Backlog => Self::unavailable("Too many orders wait for their payment; try again."),
            CheckoutError::KeyRefused => {
                Self::unavailable("Payments can't be taken at the moment; try again later.")
            }
            CheckoutError::TooManyUnpaid { seconds } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_unpaid_orders",
                "Too many of your orders in the last hour were not paid; try again later.",
            )
            .with_retry_after(seconds),
            CheckoutError::Key(error) => error.into(),
            CheckoutError::NoLines(NoLines::Empty) => {
                Self::unprocessable("cart_empty", "There is nothing in the cart to buy.")
            }
            CheckoutError::NoLines(NoLines::TooMany) => {
                let detail = format!("An order has at most {MAX_LINES} different products.");
                Self::unprocessable("too_many_items", detail)
            }
            CheckoutError::UnknownAddress => {
                let error = FieldError::new("/address_id", "unknown_address", "You have no such address.");
                let problem = Self::unprocessable("unknown_address", "The address does not exist.");
                problem.with_errors(vec![error])
            }
            CheckoutError::UserAway => {
                Self::unavailable("Addresses can't be looked up at the moment; try again.")
            }
            CheckoutError::ProductAway => {
                Self::unavailable("Stock can't be reserved at the moment; try again.")
            }
            CheckoutError::NotReserved => Self::unavailable("The stock could not be reserved; try again."),
            CheckoutError::Overloaded(_) => Self::unavailable("Too many orders at once; try again."),
            // A cart has a row for each product, and its quantities are checked.
            CheckoutError::NoLines(NoLines::Quantity(_) | NoLines::Twice(_))
            | CheckoutError::NoAddress
            | CheckoutError::Encode(_) => defect(&error),
            CheckoutError::Store(error) => error.into(),
        }
    }
}

impl From<RefundError> for Problem {
    fn from(error: RefundError) -> Self {
        match error {
            RefundError::Key(error) => error.into(),
            RefundError::UnknownOrder => unknown_order(),
            RefundError::Encode(_) => defect(&error),
            RefundError::Store(error) => error.into(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::UnknownOrder => unknown_order(),
            ReadError::Overloaded(_) => Self::unavailable("Too many are reading; try again."),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotRead(error) => error.into(),
            ChangeError::NotApplied(NotApplied::Refused(refusal)) => refused(refusal),
            ChangeError::NotApplied(NotApplied::UnknownOrder) => unknown_order(),
            ChangeError::NotApplied(NotApplied::Overloaded) => {
                Self::unavailable("The service is busy; try again.")
            }
            ChangeError::NotApplied(NotApplied::Store(error)) => error.into(),
        }
    }
}

impl From<ReaddressError> for Problem {
    fn from(error: ReaddressError) -> Self {
        match error {
            ReaddressError::NotChangeable => {
                let detail = "Only of an order of which nothing has left, and that is to leave, can the address be changed.";
                Self::conflict("address_not_changeable", detail)
            }
            ReaddressError::NotRead(error) => error.into(),
            ReaddressError::Store(error) => error.into(),
        }
    }
}

impl From<NoteError> for Problem {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::CustomerForgotten => {
                let detail = "The order's customer is forgotten, and with them what was noted.";
                Self::conflict("customer_forgotten", detail)
            }
            NoteError::KeyReused => service::idempotency::reused(),
            NoteError::Store(error) => error.into(),
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Call(status) if status.code() == Code::InvalidArgument => {
                let error = FieldError::new("/email", "invalid_email", "This is not an e-mail address.");
                Self::invalid(vec![error])
            }
            error => {
                tracing::warn!(%error, "orders.user_away");
                Self::unavailable("Customers can't be looked up at the moment; try again.")
            }
        }
    }
}

impl From<ShipError> for Problem {
    fn from(error: ShipError) -> Self {
        let not_shippable = |detail: String| Self::conflict("not_shippable", &*detail);
        match error {
            ShipError::Refused(refusal) => refused(refusal),
            ShipError::UnknownParcel => {
                let error = FieldError::new("/parcel_id", "unknown_parcel", "The order has no such parcel.");
                Self::invalid(vec![error])
            }
            ShipError::WhichParcel => not_shippable(
                "All of it has left. To correct one of its parcels, name its parcel_id.".to_owned(),
            ),
            ShipError::NumberIsKnown => {
                let detail = "A parcel of the order has this number, with other things in it.";
                let error = FieldError::new("/tracking_number", "number_is_known", detail);
                not_shippable(detail.to_owned()).with_errors(vec![error])
            }
            ShipError::KeyReused => service::idempotency::reused(),
            ShipError::TooMany { index, left } => {
                let detail = format!("{left} have not left yet.");
                let error = FieldError::new(format!("/items/{index}/quantity"), "more_than_left", detail);
                not_shippable("More would leave than has not left yet.".to_owned()).with_errors(vec![error])
            }
            ShipError::Read(error) => error.into(),
            ShipError::Store(error) => error.into(),
        }
    }
}

impl From<CartError> for Problem {
    fn from(error: CartError) -> Self {
        match error {
            CartError::UnknownProduct => Self::not_found("There is no such product."),
            CartError::MixedCurrencies => {
                Self::conflict("mixed_currencies", "All items of a cart have one currency.")
            }
            CartError::Full => {
                let detail = format!("A cart holds at most {MAX_LINES} different products.");
                Self::conflict("cart_full", detail)
            }
            CartError::Changed => {
                let detail = "The cart has another number of it by now; look at it again.";
                Self::conflict("cart_changed", detail)
            }
            CartError::Key(error) => error.into(),
            CartError::Catalogue(CatalogueError::Away) => {
                Self::unavailable("The catalogue can't be reached; try again.")
            }
            CartError::Catalogue(CatalogueError::Store(error)) | CartError::Store(error) => error.into(),
        }
    }
}

fn unknown_order() -> Problem {
    Problem::not_found("There is no such order.")
}

fn defect(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "http.defect");
    Problem::internal()
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotCancellable => {
            Problem::conflict("not_cancellable", "The order can't be cancelled any more.")
        }
        Refusal::NotShippable => {
            let detail = "Only what is paid, not given back and not on its way can be shipped.";
            Problem::conflict("not_shippable", detail)
        }
        Refusal::NotDeliverable => {
            Problem::conflict("not_deliverable", "Only an order that is on its way can be delivered.")
        }
        Refusal::Disputed => {
            let detail = "The customer's bank disputes the payment: wait until that is decided.";
            Problem::conflict("payment_disputed", detail)
        }
        Refusal::RefundExceedsCaptured => {
            let detail = "That is more than was captured and is not refunded yet.";
            let error = FieldError::new("/amount", "refund_exceeds_captured", detail);
            Problem::conflict("refund_exceeds_captured", detail).with_errors(vec![error])
        }
    }
}

/// The answer to a checkout that is refused, as it is kept with its key. `lines` are what was to be bought.
pub fn checkout_refused(
    id: Uuid,
    refusal: &checkout::Refusal,
    lines: &[Line],
) -> serde_json::Result<StoredAnswer> {
    use checkout::Refusal;
    let at = |product: ProductId| match lines.iter().position(|line| line.product_id == product) {
        Some(index) => format!("/items/{index}"),
        None => "/items".to_owned(),
    };
    let problem = match refusal {
        Refusal::OutOfStock(short) => {
            let errors = short.iter().map(|line| {
                let detail = format!("{} asked for, {} available.", line.requested, line.available);
                FieldError::new(at(line.product_id), "out_of_stock", detail)
            });
            let problem = Problem::conflict("out_of_stock", "Not enough of everything is in stock.");
            problem.with_errors(errors.collect())
        }
        Refusal::UnknownProducts(ids) => {
            let errors = ids.iter().map(|id| {
                FieldError::new(format!("{}/product_id", at(*id)), "unknown_product", "No such product.")
            });
            let problem = Problem::unprocessable("unknown_product", "A product does not exist.");
            problem.with_errors(errors.collect())
        }
        Refusal::NoTotal(why) => Problem::invalid(vec![no_total(*why)]),
        Refusal::CartChanged => {
            let detail = "The cart has changed since it was read; look at it again.";
            Problem::conflict("cart_changed", detail)
        }
        Refusal::PriceChanged(items) => {
            let total = items.total();
            let detail = format!(
                "The order comes to {total} now. To buy at these prices, send it again with a new Idempotency-Key."
            );
            let prices = items.iter().map(|item| {
                json!({"product_id": item.product_id, "unit_price": item.unit_price, "quantity": item.quantity})
            });
            Problem::conflict("price_changed", detail)
                .with_extension("items", prices.collect())
                .with_extension("new_total", json!(total))
        }
    };
    stored(id, &problem)
}

/// The answer to a refund that is refused, as it is kept with its key.
pub fn refund_refused(id: Uuid, refusal: &refunds::Refusal) -> serde_json::Result<StoredAnswer> {
    let problem = match refusal {
        refunds::Refusal::RestockExceedsSold(lines) => {
            let errors = lines.iter().map(|line| {
                let detail = format!("{} to go back, {} sold and not back yet.", line.wanted, line.left);
                FieldError::new(format!("/restock/{}/quantity", line.index), "restock_exceeds_sold", detail)
            });
            let detail = "More would go back into stock than was sold and is not back yet.";
            Problem::conflict("restock_exceeds_sold", detail).with_errors(errors.collect())
        }
        refunds::Refusal::ReturnedOrNot => {
            let detail = "Some of these units have left and some have not: say which go back into stock.";
            Problem::invalid(vec![FieldError::new("/returned", "missing_field", detail)])
        }
        refunds::Refusal::Rule(refusal) => refused(*refusal),
    };
    stored(id, &problem)
}

fn stored(id: Uuid, problem: &Problem) -> serde_json::Result<StoredAnswer> {
    Ok(StoredAnswer { id, status: problem.status.as_u16(), body: serde_json::to_string(problem)? })
}

fn no_total(why: NoTotal) -> FieldError {
    let at =
        |index: usize, code: &str, detail: &str| FieldError::new(format!("/items/{index}"), code, detail);
    match why {
        NoTotal::Empty => FieldError::new("/items", "too_short", "At least one item."),
        NoTotal::MixedCurrencies(index) => {
            at(index, "mixed_currencies", "All items of an order have one currency.")
        }
        NoTotal::TooLarge(index) => {
            at(index, "total_too_large", "With this item the order comes to more than a card can be charged.")
        }
        NoTotal::NotChargeable(currency) => {
            let step = Money::new(currency.card_step(), currency);
            FieldError::new(
                "/items",
                "total_not_chargeable",
                format!("Cards are charged in steps of {step}."),
            )
        }
    }
}
