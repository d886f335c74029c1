//! What staff send, parsed into values that can't be wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::validate::Invalid;
use service::{FieldError, Money, Problem};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Product, Status, sku};
use crate::schema::{self, MAX_ATTRIBUTES, MAX_IMAGES};
use crate::stock::{MAX_DELTA, MAX_ON_HAND};

/// The part of a product that staff decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Form {
    #[schema(schema_with = schema::sku)]
    pub sku: String,
    #[schema(schema_with = schema::up_to_200)]
    pub name: String,
    #[schema(schema_with = schema::description)]
    pub description: String,
    #[schema(schema_with = schema::price)]
    pub price: Money,
    #[schema(schema_with = schema::category)]
    pub category: String,
    #[serde(default)]
    #[schema(schema_with = schema::attributes)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    #[schema(schema_with = schema::images)]
    pub images: Vec<String>,
}

/// The attributes of several lines.
pub const TEXTS: [&str; 2] = ["description", "attributes"];

const FIELDS: [&str; 7] = ["sku", "name", "description", "price", "category", "attributes", "images"];

/// A [`Form`] and the units to start with.
#[derive(Clone, Debug)]
pub struct NewProduct {
    pub form: Form,
    pub stock: i32,
    pub status: Status,
}

impl NewProduct {
    /// From the body of a POST.
    pub fn parse(body: Value) -> Result<Self, Problem> {
        let (body, status) = split_status(body)?;
        let (form, stock) = with_stock(body, Some(&[]))?;
        Ok(Self { form, stock: stock.unwrap_or(0), status: status.unwrap_or_default() })
    }
}

/// The form, `stock` and `status`.
impl PartialSchema for NewProduct {
    fn schema() -> RefOr<Schema> {
        form_but(|form| {
            form.properties.insert("stock".to_owned(), schema::stock().into());
            form.properties.insert("status".to_owned(), schema::status().into());
        })
    }
}

impl ToSchema for NewProduct {}

/// A merge patch of a [`Form`], as the OpenAPI document describes it.
pub struct Patch;

impl PartialSchema for Patch {
    fn schema() -> RefOr<Schema> {
        form_but(|form| {
            form.required.clear();
            form.properties.insert("price".to_owned(), schema::price_change().into());
            form.properties.insert("attributes".to_owned(), schema::attributes_change().into());
            form.properties.insert("images".to_owned(), schema::images_change().into());
            form.properties.insert("status".to_owned(), schema::status().into());
        })
    }
}

impl ToSchema for Patch {
    fn name() -> std::borrow::Cow<'static, str> {
        "ProductPatch".into()
    }
}

fn form_but(change: impl FnOnce(&mut Object)) -> RefOr<Schema> {
    let mut schema = Form::schema();
    if let RefOr::T(Schema::Object(form)) = &mut schema {
        form.description = None;
        change(form);
    }
    schema
}

/// The rest of a body, and the status that it asks for: published or draft.
pub fn split_status(mut body: Value) -> Result<(Value, Option<Status>), Problem> {
    let status = body.as_object_mut().and_then(|fields| fields.remove("status"));
    let status = match status.as_ref().map(Value::as_str) {
        None => None,
        Some(Some("published")) => Some(Status::Published),
        Some(Some("draft")) => Some(Status::Draft),
        Some(_) => {
            let detail = "published or draft.";
            return Err(Problem::invalid(vec![FieldError::new("/status", "invalid_value", detail)]));
        }
    };
    Ok((body, status))
}

/// A form and, where the body names them, units on hand. `own` as for [`Form::check`].
pub(super) fn with_stock(mut body: Value, own: Option<&[String]>) -> Result<(Form, Option<i32>), Problem> {
    let stock = body.as_object_mut().and_then(|fields| fields.remove("stock"));
    let form: Form = service::extract::fit_with_texts(body, &TEXTS)?;
    let mut invalid = Invalid::new();
    form.check(own, &mut invalid);
    let stock = match stock.as_ref().map(Value::as_i64) {
        None => None,
        // An import may count what many deliveries brought.
        Some(Some(units)) => {
            let most = if own.is_some() { MAX_DELTA } else { MAX_ON_HAND.into() };
            invalid.range("/stock", units, 0, most)
        }
        Some(None) => {
            invalid.push("/stock", "invalid_value", "A whole number.");
            None
        }
    };
    invalid.check()?;
    Ok((form, stock.and_then(|units| i32::try_from(units).ok())))
}

impl From<&Product> for Form {
    fn from(product: &Product) -> Self {
        let product = product.clone();
        Self {
            sku: product.sku,
            name: product.name,
            description: product.description,
            price: product.price,
            category: product.category,
            attributes: product.attributes,
            images: product.images,
        }
    }
}

impl Form {
    /// `own`: addresses of uploaded images that the product has; `None` where that is checked later.
    fn check(&self, own: Option<&[String]>, invalid: &mut Invalid) {
        if !sku::is_sku(&self.sku) {
            let detail = format!("1 to {} characters that can be seen.", sku::LONGEST);
            invalid.push("/sku", "invalid_sku", detail);
        }
        invalid.text("/name", self.name.clone(), 1, 200);
        invalid.text("/description", self.description.clone(), 0, 5000);
        check_price(self.price, invalid);
        if self.attributes.len() > MAX_ATTRIBUTES {
            invalid.push("/attributes", "too_many", format!("At most {MAX_ATTRIBUTES}."));
        }
        for (name, value) in &self.attributes {
            let pointer = format!("/attributes/{}", name.replace('~', "~0").replace('/', "~1"));
            invalid.text(&pointer, name.clone(), 1, 64);
            invalid.text(&pointer, value.clone(), 0, 200);
        }
        if self.images.len() > MAX_IMAGES {
            invalid.push("/images", "too_many", format!("At most {MAX_IMAGES}."));
        }
        for (index, address) in self.images.iter().enumerate() {
            let web = address.starts_with("https://") || address.starts_with("http://");
            if own.is_some_and(|own| own.contains(address)) {
                continue;
            }
            if address.starts_with("/api/v1/products/") {
                if own.is_none() {
                    continue;
                }
                invalid.push(format!("/images/{index}"), "unknown_image", "Not an image of this product.");
                continue;
            }
            if !web || address.len() > 2000 || address.parse::<axum::http::Uri>().is_err() {
                invalid.push(format!("/images/{index}"), "invalid_value", "An http(s) address.");
            }
        }
    }
}

/// From 0 to the most that cards are charged in its currency, in steps that can be charged.
fn check_price(price: Money, invalid: &mut Invalid) {
    let currency = price.currency;
    let in_range = invalid.range("/price/amount", price.amount, 0, currency.card_ceiling()).is_some();
    if in_range && price.for_cards().is_none() {
        let step = Money::new(currency.card_step(), currency);
        invalid.push("/price/amount", "not_chargeable", format!("Cards are charged in steps of {step}."));
    }
}

/// `product`'s form after a merge patch (RFC 7396).
pub fn merge_patch(product: &Product, patch: Value) -> Result<Form, Problem> {
    let Value::Object(patch) = patch else {
        return Err(Problem::invalid(vec![FieldError::new("", "invalid_value", "A JSON object.")]));
    };
    refuse_unknown("", &patch, &FIELDS)?;
    if let Some(Value::Object(price)) = patch.get("price") {
        refuse_unknown("/price", price, &["amount", "currency"])?;
    }
    let mut target = serde_json::to_value(Form::from(product)).map_err(|error| {
        tracing::error!(%error, "product.not_json");
        Problem::internal()
    })?;
    merge(&mut target, Value::Object(patch));
    let form: Form = service::extract::fit_with_texts(target, &TEXTS)?;
    let mut invalid = Invalid::new();
    form.check(Some(&product.images), &mut invalid);
    if form.price.currency != product.price.currency {
        // A cart has one currency, and the product may be in some.
        let detail = "A product keeps its currency; create another product.";
        invalid.push("/price/currency", "currency_fixed", detail);
    }
    invalid.check()?;
    Ok(form)
}

/// Merging would silently drop an unknown field whose value is null.
fn refuse_unknown(pointer: &str, patch: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    let Some(name) = patch.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let detail = format!("A patch may hold {} here.", known.join(", "));
    let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    Err(Problem::invalid(vec![FieldError::new(pointer, "unknown_field", detail)]))
}

/// RFC 7396, section 2. As deep as the patch, which the JSON parser bounds.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(&name);
            } else {
                merge(fields.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn a_merge_patch_works_as_in_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} + {patch}");
        }
    }

    #[test]
    fn everything_wrong_with_a_form_is_said_at_once() {
        let body = json!({"sku": " ", "name": " ", "description": "", "category": "x",
            "price": {"amount": -1, "currency": "EUR"}, "stock": -1, "images": ["javascript:alert(1)"]});
        let problem = NewProduct::parse(body).unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/sku", "/name", "/price/amount", "/images/0", "/stock"]);
    }

    #[test]
    fn a_price_is_one_that_can_be_charged() {
        let code = |amount: i64, currency: &str| {
            let mut invalid = Invalid::new();
            check_price(Money::new(amount, currency.parse().unwrap()), &mut invalid);
            let problem = invalid.check().err()?;
            problem.errors.into_iter().next_back().map(|error| (error.code, error.detail))
        };
        for (amount, currency) in
            [(0, "EUR"), (450_000_000, "IDR"), (24_900, "ISK"), (5120, "KWD"), (999_999_999_999, "EUR")]
        {
            assert_eq!(code(amount, currency), None, "{amount} {currency}");
        }
        let (refused, detail) = code(5124, "KWD").unwrap();
        assert_eq!((&*refused, &*detail), ("not_chargeable", "Cards are charged in steps of 0.010 KWD."));
        assert_eq!(code(-1, "EUR").unwrap().0, "out_of_range");
        assert_eq!(code(1_000_000_000_000, "EUR").unwrap().0, "out_of_range");
    }
}
