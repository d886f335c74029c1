//! Values as the OpenAPI document describes them, in line with what is accepted.

use service::money::Currency;
use service::openapi::schema::{lines, string, visible};
pub use service::openapi::schema::{lines_up_to_200, up_to_100, up_to_200};
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};

use crate::stock::MAX_DELTA;

/// Most attributes that a product has.
pub const MAX_ATTRIBUTES: usize = 50;
/// Most images that a product shows.
pub const MAX_IMAGES: usize = 20;

/// A host, perhaps a port, and what may follow in an address.
const ON_THE_WEB: &str = concat!(
    r"https?://[A-Za-z0-9._~-]+(:[0-9]{1,5})?",
    r#"([/?#][^\s"<>\\^`{|}\u0000-\u001f\u007f-\u009f]*)?"#
);

/// The address of an uploaded image.
const UPLOADED: &str =
    "/api/v1/products/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/images/[0-9]";

/// A character that no SKU contains, as it is invisible. As in `product::sku`.
macro_rules! invisible {
    () => {
        r"\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
    };
}

pub fn sku() -> Object {
    let pattern = concat!("^[^", invisible!(), r"]*[^\s", invisible!(), "][^", invisible!(), "]*$");
    let description = "Told apart from others in any case and any Unicode normal form.";
    string(pattern).min_length(Some(1)).max_length(Some(64)).description(Some(description)).build()
}

pub fn description() -> Object {
    ObjectBuilder::from(lines()).max_length(Some(5000)).build()
}

/// Only the shop knows which categories exist.
pub fn category() -> Object {
    ObjectBuilder::from(visible(1, 64)).description(Some("A category's slug.")).build()
}

/// The slug of a category, or null for none.
pub fn parent() -> Object {
    let mut parent = string(r"^[^\u0000-\u001f\u007f-\u009f]*$").max_length(Some(64)).build();
    parent.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    parent
}

/// Of any currency: most have a lower ceiling, and some are charged in steps.
const MAX_AMOUNT: i64 = 99_999_999_999_900;

pub fn price() -> Object {
    ObjectBuilder::from(price_change()).required("amount").required("currency").build()
}

/// A merge patch may hold either half of a price.
pub fn price_change() -> Object {
    let amount = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(MAX_AMOUNT));
    let currency = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Currency::codes()));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("amount", amount.description(Some("Minor units.")))
        .property("currency", currency.description(Some("ISO 4217.")))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .build()
}

pub fn attributes() -> Object {
    attributes_of(Type::String.into())
}

/// As [`attributes`] in a merge patch: null takes one away, or all.
pub fn attributes_change() -> Object {
    let nullable = |kind| SchemaType::from_iter([kind, Type::Null]);
    let attributes = attributes_of(nullable(Type::String));
    ObjectBuilder::from(attributes).schema_type(nullable(Type::Object)).build()
}

fn attributes_of(kind: SchemaType) -> Object {
    let value = ObjectBuilder::from(lines()).schema_type(kind).max_length(Some(200));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(Schema::Object(visible(1, 64))))
        .additional_properties(Some(value))
        .max_properties(Some(MAX_ATTRIBUTES))
        .build()
}

pub fn images() -> Array {
    images_of(&format!("^{ON_THE_WEB}$")).build()
}

/// As [`images`] in a merge patch, which may keep uploaded ones: null takes all away.
pub fn images_change() -> Array {
    images_of(&format!("^({ON_THE_WEB}|{UPLOADED})$"))
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .build()
}

fn images_of(pattern: &str) -> ArrayBuilder {
    let address = string(pattern).max_length(Some(2000));
    let description = "Addresses of images on other sites, and of those uploaded here.";
    ArrayBuilder::new().description(Some(description)).items(address).max_items(Some(MAX_IMAGES))
}

/// What staff may ask for.
pub fn status() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["published", "draft"]))
        .description(Some("Whether it is in the shop."))
        .build()
}

pub fn stock() -> Object {
    let units = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(MAX_DELTA));
    units.description(Some("Units on hand to start with, 0 by default.")).build()
}

/// Any change but none.
pub fn delta() -> Schema {
    let range = |min: i64, max: i64| {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max))
    };
    let description = "Units added, or taken when negative; not 0.";
    OneOfBuilder::new()
        .item(range(-MAX_DELTA, -1))
        .item(range(1, MAX_DELTA))
        .description(Some(description))
        .into()
}

#[cfg(test)]
mod tests {
    use service::Money;
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use time::OffsetDateTime;
    use utoipa::PartialSchema;
    use uuid::Uuid;

    use super::*;
    use crate::product::{NewProduct, Patch, Product, Status, Stock, merge_patch, split_status};

    /// Whether the schema takes the body, by itself.
    fn is_described<T: PartialSchema>(body: &Value) -> bool {
        let schema = serde_json::to_value(T::schema()).unwrap();
        jsonschema::validator_for(&schema).unwrap().is_valid(body)
    }

    fn body() -> Value {
        json!({"sku": "A", "name": "n", "description": "", "category": "sea",
            "price": {"amount": 1, "currency": "EUR"}})
    }

    #[test]
    fn a_new_product_is_accepted_exactly_if_its_schema_says_so() {
        let money = |amount: Value, currency: &str| json!({"amount": amount, "currency": currency});
        let fields = [
            (
                "sku",
                vec![
                    json!("a.B_9-"),
                    json!("x".repeat(64)),
                    json!(" 4058NB/12 +ü"),
                    json!("товар:1"),
                    json!("無線\u{a0}🏮"),
                ],
                vec![
                    json!(""),
                    json!(" "),
                    json!("\u{a0}"),
                    json!("a\tb"),
                    json!("a\u{200b}"),
                    json!("\u{202e}a"),
                    json!("\u{feff}a"),
                    json!("a\u{ad}"),
                    json!("x".repeat(65)),
                ],
            ),
            (
                "name",
                vec![json!("Größe 🏮"), json!(" x ")],
                vec![json!(" "), json!("a\u{7f}"), json!("x".repeat(201))],
            ),
            (
                "description",
                vec![json!(" "), json!("a\r\nb\n\tc\r")],
                vec![json!("a\u{0}b"), json!("a\u{b}b"), json!("x".repeat(5001)), Value::Null],
            ),
            (
                "price",
                vec![money(json!(0), "JPY"), money(json!(999_999_999_999_i64), "XXX")],
                vec![
                    money(json!(-1), "EUR"),
                    money(json!(100_000_000_000_000_i64), "EUR"),
                    money(json!(1), "AAA"),
                    json!({"amount": 1}),
                ],
            ),
            (
                "attributes",
                vec![json!({"a": ""}), json!({"a": "b\nc"}), json!({})],
                vec![
                    json!({" ": "a"}),
                    json!({"a\nb": "c"}),
                    json!({"a": "b\u{7f}"}),
                    json!({"a": "x".repeat(201)}),
                    json!({"a": null}),
                    json!({"x".repeat(65): "a"}),
                    Value::Null,
                ],
            ),
            (
                "images",
                vec![
                    json!([]),
                    json!(["http://a"]),
                    json!(["https://a.example:8443/ä?b=[c]&d=%20#e"]),
                    json!(["https://a?b"]),
                    json!(["https://a/b:c@d!$'()*+,;="]),
                ],
                vec![
                    json!(["/a"]),
                    json!(["https://"]),
                    json!(["ftp://a"]),
                    json!(["https://a/ b"]),
                    json!(["https:///a"]),
                    json!(vec!["https://a"; 21]),
                    Value::Null,
                ],
            ),
            (
                "stock",
                vec![json!(0), json!(1_000_000)],
                vec![json!(-1), json!(1_000_001), json!(1.5), json!("1"), Value::Null],
            ),
            ("status", vec![json!("draft"), json!("published")], vec![json!("deleted"), Value::Null]),
            ("slug", vec![], vec![json!("a")]),
        ];
        for (field, good, bad) in fields {
            for (value, wanted) in
                good.into_iter().map(|v| (v, true)).chain(bad.into_iter().map(|v| (v, false)))
            {
                let mut body = body();
                body[field] = value;
                assert_eq!(is_described::<NewProduct>(&body), wanted, "described: {body}");
                assert_eq!(NewProduct::parse(body.clone()).is_ok(), wanted, "accepted: {body}");
            }
        }
        for field in ["sku", "name", "description", "price", "category"] {
            let mut body = body();
            body.as_object_mut().unwrap().remove(field);
            assert!(!is_described::<NewProduct>(&body) && NewProduct::parse(body).is_err(), "{field}");
        }
    }

    #[test]
    fn a_patch_is_accepted_exactly_if_its_schema_says_so() {
        let product = Product {
            id: Uuid::nil(),
            sku: "A".to_owned(),
            slug: "n".to_owned(),
            name: "n".to_owned(),
            description: String::new(),
            price: Money::new(1, Currency::EUR),
            category: "sea".to_owned(),
            attributes: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            images: vec![crate::image::address(Uuid::nil(), 3)],
            stock: Stock { available: 1 },
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            status: Status::Published,
        };
        let good = [
            json!({}),
            json!({"price": {"amount": 5}}),
            json!({"price": {"currency": "EUR"}}),
            json!({"price": {}}),
            json!({"attributes": null, "images": null}),
            json!({"attributes": {"a": null, "c": "d"}}),
            json!({"images": product.images}),
            json!({"status": "draft", "name": "m"}),
        ];
        let bad = [
            json!({"sku": null}),
            json!({"name": null}),
            json!({"price": null}),
            json!({"price": {"amount": null}}),
            json!({"price": {"x": null}}),
            json!({"category": null}),
            json!({"attributes": {"a": 1}}),
            json!({"images": [null]}),
            json!({"status": "deleted"}),
            json!({"status": null}),
            json!({"stock": 1}),
            json!({"x": null}),
            json!([]),
        ];
        for (patch, wanted) in good.into_iter().map(|v| (v, true)).chain(bad.into_iter().map(|v| (v, false)))
        {
            assert_eq!(is_described::<Patch>(&patch), wanted, "described: {patch}");
            let accepted = split_status(patch.clone()).and_then(|(patch, _)| merge_patch(&product, patch));
            assert_eq!(accepted.is_ok(), wanted, "accepted: {patch}");
        }
    }
}
