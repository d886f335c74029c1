//! What is recorded.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

/// Characters of a text that are kept: enough to see what was changed.
const LONGEST_TEXT: usize = 500;

/// Who acted, in which role.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    pub id: Uuid,
    pub role: &'static str,
}

/// Something that was done.
#[derive(Debug)]
pub struct Entry {
    actor: Option<Actor>,
    action: &'static str,
    kind: &'static str,
    object: Option<String>,
    changes: Vec<Value>,
    personal: Vec<Value>,
    subject: Option<Uuid>,
}

/// An [`Entry`] as it is stored.
pub(crate) struct Row {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub actor: Option<Uuid>,
    pub role: Option<&'static str>,
    pub action: &'static str,
    pub kind: &'static str,
    pub object: Option<String>,
    pub changes: Value,
    pub request: Option<String>,
    pub personal: Option<(Uuid, Value)>,
}

impl Entry {
    /// `action` is a word of `kind.what` form, such as `order.shipped`; `object` is the id of what it was done to.
    pub fn new(
        actor: impl Into<Actor>,
        action: &'static str,
        kind: &'static str,
        object: impl ToString,
    ) -> Self {
        Self { actor: Some(actor.into()), ..Self::by_nobody(action, kind, Some(object.to_string())) }
    }

    /// By somebody unknown.
    pub fn by_nobody(action: &'static str, kind: &'static str, object: Option<String>) -> Self {
        Self { actor: None, action, kind, object, changes: vec![], personal: vec![], subject: None }
    }

    /// A field with its values before and after. A field that has not changed is left out.
    pub fn field(mut self, name: &str, before: impl Serialize, after: impl Serialize) -> Self {
        self.changes.extend(change(name, &value(before), &value(after)));
        self
    }

    /// A field whose values nobody may know.
    pub fn named(mut self, name: &str) -> Self {
        self.changes.push(json!({"field": name}));
        self
    }

    /// Each field in which two states of the same thing differ.
    pub fn fields(mut self, before: &impl Serialize, after: &impl Serialize) -> Self {
        self.changes.extend(differences(before, after));
        self
    }

    /// As [`Self::fields`], for personal values of `subject`: the row names the fields, and the values are
    /// deleted when `subject` is erased.
    pub fn personal(mut self, subject: Uuid, before: &impl Serialize, after: &impl Serialize) -> Self {
        let found = differences(before, after);
        self.changes.extend(found.iter().map(|change| json!({"field": change["field"]})));
        self.personal.extend(found);
        self.subject = Some(subject);
        self
    }

    /// Without the personal values: they are of somebody who is erased already.
    pub fn impersonal(self) -> Self {
        Self { personal: vec![], ..self }
    }

    pub(crate) fn finished(self) -> Row {
        let id = Uuid::now_v7();
        let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |at| at.to_unix());
        let at = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Row {
            id,
            at: OffsetDateTime::from_unix_timestamp_nanos(at).unwrap_or(OffsetDateTime::UNIX_EPOCH),
            actor: self.actor.map(|actor| actor.id),
            role: self.actor.map(|actor| actor.role),
            action: self.action,
            kind: self.kind,
            object: self.object,
            changes: self.changes.into(),
            request: service::http::request_id(),
            personal: self.subject.filter(|_| !self.personal.is_empty()).zip(Some(self.personal.into())),
        }
    }
}

fn value(of: impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn object(of: &impl Serialize) -> Map<String, Value> {
    match value(of) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn differences(before: &impl Serialize, after: &impl Serialize) -> Vec<Value> {
    let (before, after) = (object(before), object(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |fields: &Map<String, Value>, name| fields.get(name).cloned().unwrap_or_default();
    names.into_iter().filter_map(|name| change(name, &of(&before, name), &of(&after, name))).collect()
}

fn change(name: &str, before: &Value, after: &Value) -> Option<Value> {
    (before != after).then(|| json!({"field": name, "before": short(before), "after": short(after)}))
}

fn short(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
        _ => return value.clone(),
    };
    if text.chars().count() <= LONGEST_TEXT {
        return value.clone();
    }
    format!("{}…", text.chars().take(LONGEST_TEXT).collect::<String>()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: Actor = Actor { id: Uuid::nil(), role: "staff" };

    #[test]
    fn unchanged_fields_are_left_out_and_long_values_are_cut() {
        let long = "ü".repeat(501);
        let (before, after) = (json!({"a": 1, "b": [2], "c": "x"}), json!({"a": 1, "b": [3], "d": long}));
        let row = Entry::new(SOMEBODY, "thing.changed", "thing", "7").fields(&before, &after).finished();
        let cut = format!("{}…", "ü".repeat(500));
        let wanted = json!([
            {"field": "b", "before": [2], "after": [3]},
            {"field": "c", "before": "x", "after": null},
            {"field": "d", "before": null, "after": cut},
        ]);
        assert_eq!((row.changes, row.personal), (wanted, None));
    }

    #[test]
    fn a_personal_value_is_not_in_the_row() {
        let (whose, none) = (Uuid::max(), json!({}));
        let entry = Entry::new(SOMEBODY, "thing.changed", "thing", "7").field("size", 1, 2);
        let row = entry.personal(whose, &none, &json!({"name": "Ada"})).finished();
        assert_eq!(row.changes, json!([{"field": "size", "before": 1, "after": 2}, {"field": "name"}]));
        let personal = json!([{"field": "name", "before": null, "after": "Ada"}]);
        assert_eq!(row.personal, Some((whose, personal)));
        assert_eq!(row.id.get_version_num(), 7);
    }
}
