//! Entity tags of products (RFC 9110, section 8.8.3).
//!
//! A tag is `"<version>.<available>"`: the body shows `available`, so a strong tag has to follow it.
//! `If-Match` compares the version alone: a patch can't overwrite a sale that came between a writer's GET and
//! PATCH.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use service::Problem;

use crate::product::Product;

pub fn of(product: &Product) -> HeaderValue {
    let tag = format!("\"{}.{}\"", product.version, product.stock.available);
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Whether the caller has the product as it is (`If-None-Match`, weak comparison).
pub fn is_held(headers: &HeaderMap, product: &Product) -> bool {
    holds(headers, &of(product))
}

/// Whether the caller has the version that `tag` names.
pub fn holds(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    tags(headers, header::IF_NONE_MATCH)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given).as_bytes() == tag.as_bytes())
}

/// Whether the caller wants to write only where nothing exists (RFC 9110, section 13.1.2).
pub fn only_new(headers: &HeaderMap) -> bool {
    tags(headers, header::IF_NONE_MATCH).any(|given| given == "*")
}

/// 428 without `If-Match`, 412 when the product has changed since.
pub fn require_current(headers: &HeaderMap, product: &Product) -> Result<(), Problem> {
    if !headers.contains_key(header::IF_MATCH) {
        return Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition_required",
            "Send If-Match with the ETag that GET gave.",
        ));
    }
    let version = |given: &str| -> Option<i64> {
        let (version, available) = given.strip_prefix('"')?.strip_suffix('"')?.split_once('.')?;
        available.parse::<i32>().ok()?;
        version.parse().ok()
    };
    if tags(headers, header::IF_MATCH).any(|given| given == "*" || version(given) == Some(product.version)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "precondition_failed",
        "The product has changed since; GET it again.",
    ))
}

fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
