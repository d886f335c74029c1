//! Two people who edit one product: what each has changed, and which change stays.

use super::product::FIELDS;
use crate::form::{Fill, Form};

/// A field that two have changed, or one of them.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub name: &'static str,
    pub was: String,
    pub mine: String,
    pub theirs: String,
}

pub struct Merged {
    /// What goes into the form: ours, and theirs where we have changed nothing.
    pub fill: Fill,
    /// Both have changed it: somebody has to choose.
    pub differences: Vec<Difference>,
    /// They alone have changed it.
    pub taken: Vec<Difference>,
}

impl Merged {
    pub fn new(was: &Fill, mine: &Fill, theirs: &Fill) -> Self {
        let mut merged = Self { fill: Fill::default(), differences: Vec::new(), taken: Vec::new() };
        for name in FIELDS {
            let [was, mine, theirs] = [was, mine, theirs].map(|fill| fill.value(name).replace("\r\n", "\n"));
            let untouched = mine == was;
            let value = if untouched { theirs.clone() } else { mine.clone() };
            merged.fill = merged.fill.with(name, value);
            if theirs == was || theirs == mine {
                continue;
            }
            let list = if untouched { &mut merged.taken } else { &mut merged.differences };
            list.push(Difference { name, was, mine, theirs });
        }
        merged
    }

    /// No change of theirs conflicts.
    pub fn is_clear(&self) -> bool {
        self.differences.is_empty() && self.taken.is_empty()
    }
}

/// A form in which `take-<field>` says `theirs` has what the page showed as theirs, which is what it began from.
pub fn chosen(form: Form) -> Form {
    let fields = form.fields().iter().map(|(name, value)| {
        let theirs = form.get(&format!("take-{name}")) == "theirs";
        let value = if theirs { form.get(&format!("was-{name}")) } else { value };
        (name.clone(), value.to_owned())
    });
    Form::of(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_both_are_distinguished() {
        let was = Fill::default()
            .with("name", "Lamp")
            .with("price", "1.00")
            .with("sku", "L")
            .with("status", "draft");
        let mine = Fill::default()
            .with("name", "My lamp")
            .with("price", "1.00")
            .with("sku", "L")
            .with("status", "published");
        let theirs = Fill::default()
            .with("name", "Their lamp")
            .with("price", "2.00")
            .with("sku", "L")
            .with("status", "published");
        let merged = Merged::new(&was, &mine, &theirs);
        let names = |list: &[Difference]| list.iter().map(|difference| difference.name).collect::<Vec<_>>();
        assert_eq!(names(&merged.differences), ["name"], "both have changed it");
        assert_eq!(names(&merged.taken), ["price"], "they alone have");
        assert_eq!((merged.fill.value("name"), merged.fill.value("price")), ("My lamp", "2.00"));
        assert_eq!(merged.fill.value("status"), "published");
        assert!(!merged.is_clear() && Merged::new(&was, &mine, &was).is_clear());
    }

    #[test]
    fn a_choice_of_theirs_puts_theirs_into_the_form() {
        let form = Form::parse(
            b"name=My+lamp&was-name=Their+lamp&take-name=theirs&sku=mine&was-sku=theirs&take-sku=mine",
        );
        let form = chosen(form);
        assert_eq!((form.get("name"), form.get("sku")), ("Their lamp", "mine"));
    }
}
