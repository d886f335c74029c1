//! JSON as a type, with a pointer to what does not fit.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::problem::MOST_ERRORS;
use crate::{FieldError, Problem};

/// `value` as a `T`; 422 with a pointer to what doesn't fit. Its texts are of one line.
pub fn fit<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    fit_with_texts(value, &[])
}

/// As [`fit`], but the fields named, and what is in them, may be of several lines: they may hold tabs, and line
/// breaks of any kind, which become `\n`.
pub fn fit_with_texts<T: DeserializeOwned>(mut value: Value, texts: &[&str]) -> Result<T, Problem> {
    let mut errors = Vec::new();
    if let Value::Object(fields) = &mut value {
        for (name, field) in fields.iter_mut().filter(|(name, _)| texts.contains(&name.as_str())) {
            unify_line_breaks(field);
            let pointer = &mut format!("/{}", escape(name));
            refuse_control_characters(field, is_control_in_text, pointer, &mut errors);
        }
        let lines = fields.iter().filter(|(name, _)| !texts.contains(&name.as_str()));
        refuse_in_fields(lines, char::is_control, &mut String::new(), &mut errors);
    } else {
        refuse_control_characters(&value, char::is_control, &mut String::new(), &mut errors);
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    shape(value)
}

/// As [`fit`], with control characters anywhere: for what somebody else writes
/// and we keep little of.
pub fn shape<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| {
        let pointer = error.path().iter().fold(String::new(), |pointer, segment| match segment {
            serde_path_to_error::Segment::Seq { index } => format!("{pointer}/{index}"),
            serde_path_to_error::Segment::Map { key } => format!("{pointer}/{}", escape(key)),
            _ => pointer,
        });
        let message = error.inner().to_string();
        let mut quoted = message.split('`').skip(1);
        let (pointer, code, detail) = if message.starts_with("missing field `") {
            let name = quoted.next().unwrap_or_default();
            (format!("{pointer}/{}", escape(name)), "missing_field", "This field is required.".to_owned())
        } else if message.starts_with("unknown field `") {
            (pointer, "unknown_field", "There is no such field here.".to_owned())
        } else {
            (pointer, "invalid_value", plain(message))
        };
        Problem::invalid(vec![FieldError::new(pointer, code, detail)])
    })
}

/// What serde says of a value, without Rust's names of types and without the value.
fn plain(message: String) -> String {
    if message.starts_with("UUID parsing failed") {
        return "This is not a UUID.".to_owned();
    }
    let Some((_, expected)) = message.rsplit_once("expected ") else {
        // Our own types say it in a fixed text.
        return if message.starts_with("invalid ") { "This can't be read.".to_owned() } else { message };
    };
    if message.starts_with("unknown variant `") {
        let words: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return format!("One of {} is expected here.", words.join(", "));
    }
    let kind = match expected {
        "an object" | "a map" => "An object",
        "a string" | "a character" | "string or map" => "Text",
        "a boolean" => "true or false",
        "a sequence" => "A list",
        float if float.starts_with('f') => "A number",
        _ => "A whole number in range",
    };
    format!("{kind} is expected here.")
}

/// serde_json takes an array for an object, field by field; a client that sends
/// one has made a mistake.
struct Strict(Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Strict))),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, Strict(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if !self.0.is_object() {
            return Err(serde::de::Error::custom("expected an object"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// CRLF, as forms and spreadsheets write it, and CR alone become LF. As deep as the JSON parser lets it be.
fn unify_line_breaks(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\r') => {
            *text = text.replace("\r\n", "\n").replace('\r', "\n");
        }
        Value::Array(items) => items.iter_mut().for_each(unify_line_breaks),
        Value::Object(fields) => fields.values_mut().for_each(unify_line_breaks),
        _ => {}
    }
}

fn is_control_in_text(c: char) -> bool {
    c.is_control() && !"\n\t".contains(c)
}

/// NUL would make PostgreSQL refuse the text, and none belongs into what people write.
/// `pointer` is where `value` is, and is left as it was. Names are of one line in any case.
fn refuse_control_characters(
    value: &Value,
    refused: fn(char) -> bool,
    pointer: &mut String,
    errors: &mut Vec<FieldError>,
) {
    if errors.len() >= MOST_ERRORS {
        return;
    }
    let length = pointer.len();
    match value {
        Value::String(text) if text.chars().any(refused) => {
            let detail = "Control characters are not accepted.";
            errors.push(FieldError::new(pointer.as_str(), "control_character", detail));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push('/');
                pointer.push_str(&index.to_string());
                refuse_control_characters(item, refused, pointer, errors);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => refuse_in_fields(fields.iter(), refused, pointer, errors),
        _ => {}
    }
}

fn refuse_in_fields<'a>(
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
    refused: fn(char) -> bool,
    pointer: &mut String,
    errors: &mut Vec<FieldError>,
) {
    let length = pointer.len();
    for (key, item) in fields {
        pointer.push('/');
        pointer.push_str(&escape(key));
        if key.chars().any(char::is_control) {
            errors.push(FieldError::new(pointer.as_str(), "control_character", "Not in a name either."));
        }
        refuse_control_characters(item, refused, pointer, errors);
        pointer.truncate(length);
    }
}

/// RFC 6901, section 3.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A field that may be left out, but not be null: who sends null has made a mistake, and must not get what leaving it out
/// means.
pub fn not_null<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::Money;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        name: String,
        price: Option<Money>,
        #[serde(default)]
        tags: Vec<u8>,
    }

    fn first_error(value: Value) -> (String, String) {
        let error = fit::<Form>(value).unwrap_err().errors.remove(0);
        (error.pointer, error.code)
    }

    #[test]
    fn what_fits_is_taken_as_it_is() {
        let price = json!({"amount": 5, "currency": "EUR"});
        let form: Form = fit(json!({"name": "é🚢", "price": price, "tags": [1, 255]})).unwrap();
        assert_eq!((form.name.as_str(), form.price.unwrap().amount, form.tags), ("é🚢", 5, vec![1, 255]));
        assert!(fit::<Form>(json!({"name": "n", "price": null})).unwrap().price.is_none());
    }

    #[test]
    fn what_does_not_fit_is_pointed_at() {
        let at = |pointer: &str, code: &str| (pointer.to_owned(), code.to_owned());
        assert_eq!(first_error(json!({})), at("/name", "missing_field"));
        assert_eq!(first_error(json!({"name": "n", "role": "admin"})), at("/role", "unknown_field"));
        assert_eq!(first_error(json!({"name": 1})), at("/name", "invalid_value"));
        assert_eq!(first_error(json!({"name": "n", "tags": [1, 256]})), at("/tags/1", "invalid_value"));
        assert_eq!(first_error(json!({"name": "a\u{0}b"})), at("/name", "control_character"));
        assert_eq!(first_error(json!({"name": "n", "a/b~c": "\n"})), at("/a~1b~0c", "control_character"));
    }

    #[test]
    fn only_named_fields_are_of_several_lines() {
        let texts = |value: Value| fit_with_texts::<Value>(value, &["text", "facts"]);
        let taken = texts(json!({"text": "a\r\n\r\nb\rc\n\td", "facts": {"x": ["\r\n"]}, "line": "a b"}));
        assert_eq!(taken.unwrap(), json!({"text": "a\n\nb\nc\n\td", "facts": {"x": ["\n"]}, "line": "a b"}));
        for (value, pointer) in [
            (json!({"text": "a\u{0}b"}), "/text"),
            (json!({"text": "a\u{b}b"}), "/text"),
            (json!({"facts": {"x\ny": "z"}}), "/facts/x\ny"),
            (json!({"facts": {"x": "\u{7f}"}}), "/facts/x"),
            (json!({"line": "a\nb"}), "/line"),
            (json!({"line": "a\tb"}), "/line"),
            (json!({"more": {"text": "a\nb"}}), "/more/text"),
            (json!(["a\nb"]), "/0"),
        ] {
            let error = texts(value).unwrap_err().errors.remove(0);
            assert_eq!((error.pointer.as_str(), error.code.as_str()), (pointer, "control_character"));
        }
    }

    #[test]
    fn details_are_for_people_and_do_not_repeat_the_value() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only parsed")]
        struct Ids {
            id: uuid::Uuid,
        }
        let detail = |value: Value| fit::<Form>(value).unwrap_err().errors.remove(0).detail;
        assert_eq!(detail(json!({"name": 31_415_926})), "Text is expected here.");
        assert_eq!(detail(json!({"name": "n", "tags": [1.5]})), "A whole number in range is expected here.");
        assert_eq!(detail(json!({"name": "n", "tags": [256]})), "A whole number in range is expected here.");
        assert_eq!(detail(json!({"name": "n", "tags": 1})), "A list is expected here.");
        assert_eq!(detail(json!([])), "An object is expected here.");
        let price = json!({"amount": 1, "currency": "EURO"});
        assert_eq!(
            detail(json!({"name": "n", "price": price})),
            "This is not an ISO 4217 currency code, like EUR."
        );
        let error = fit::<Ids>(json!({"id": "x"})).unwrap_err().errors.remove(0);
        assert_eq!((error.pointer.as_str(), error.detail.as_str()), ("/id", "This is not a UUID."));
        let error = fit::<Ids>(json!({"id": "0123abc"})).unwrap_err().errors.remove(0);
        assert_eq!(error.detail, "This is not a UUID.");
    }

    #[test]
    fn what_is_none_of_some_words_gets_an_error_with_the_words() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Size {
            Small,
            Big,
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only parsed")]
        struct Choice {
            size: Size,
        }
        let detail = |value: Value| fit::<Choice>(value).unwrap_err().errors.remove(0).detail;
        let words = "One of small, big is expected here.";
        assert_eq!(detail(json!({"size": "root"})), words);
        assert_eq!(detail(json!({"size": "`x`, expected `y`"})), words);
        assert_eq!(detail(json!({"size": 1})), "Text is expected here.");
    }

    #[test]
    fn errors_are_short_however_long_the_value() {
        let long = "x".repeat(100_000);
        let mut wrong = vec![json!({"name": "n", "price": {"amount": 1, "currency": long}})];
        wrong.push(json!({ "name": "n", long.clone(): 1 }));
        wrong.push(json!({"name": "n", long.clone(): vec!["\n"; 100_000]}));
        wrong.push(json!({"name": "n", "tags": [long]}));
        for value in wrong {
            let errors = fit::<Form>(value).unwrap_err().errors;
            let size: usize = errors.iter().map(|error| error.pointer.len() + error.detail.len()).sum();
            assert!(errors.len() <= 100 && size <= 100 * 400, "{} errors of {size} bytes", errors.len());
        }
    }

    #[test]
    fn an_array_is_no_object() {
        let at = |pointer: &str| (pointer.to_owned(), "invalid_value".to_owned());
        assert_eq!(first_error(json!(["n", null, []])), at(""));
        assert_eq!(first_error(json!({"name": "n", "price": [5, "EUR"]})), at("/price"));
    }
}
