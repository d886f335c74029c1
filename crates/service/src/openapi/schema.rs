//! Values as documents describe them, in line with what [`crate::extract`] and
//! [`crate::validate`] accept. For `#[schema(schema_with = ...)]`.

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// No control characters, and something to see.
const VISIBLE: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\s\u0000-\u001f\u007f-\u009f]",
    r"[^\u0000-\u001f\u007f-\u009f]*$"
);

const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// As [`VISIBLE`], in several lines.
const VISIBLE_LINES: &str = concat!(
    r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*",
    r"[^\s\u0000-\u001f\u007f-\u009f]",
    r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"
);

/// Tabs and line breaks are no control characters here.
const LINES: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

/// Text that fits this pattern.
pub fn string(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

/// Any text without control characters.
pub fn text() -> Object {
    string(NO_CONTROLS).build()
}

/// Any text of several lines.
pub fn lines() -> Object {
    string(LINES).build()
}

/// As [`visible`], in several lines.
pub fn visible_lines(min: usize, max: usize) -> Object {
    string(VISIBLE_LINES).min_length(Some(min)).max_length(Some(max)).build()
}

/// Text of `min..=max` characters that is not blank.
pub fn visible(min: usize, max: usize) -> Object {
    string(VISIBLE).min_length(Some(min)).max_length(Some(max)).build()
}

pub fn up_to_100() -> Object {
    visible(1, 100)
}

pub fn up_to_200() -> Object {
    visible(1, 200)
}

pub fn lines_up_to_200() -> Object {
    visible_lines(1, 200)
}

pub fn lines_up_to_500() -> Object {
    visible_lines(1, 500)
}

/// Text that is one of these words.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}
