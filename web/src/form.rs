//! Forms: what was typed, what is wrong with it, and both back in the page.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;

use crate::api::Refused;
use crate::api::types::Problem;
use crate::locale::Lang;
use crate::page::Failed;
use crate::visitor::Visitor;

/// A form that a page of ours has sent: its token is right.
pub struct Form(Vec<(String, String)>);

/// Fields of a form at most.
const FIELDS: usize = 300;

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failed> {
        let visitor = request.extensions().get::<Visitor>().cloned().ok_or(Failed::Forbidden)?;
        let body = Bytes::from_request(request, state).await.map_err(|_| Failed::TooLarge)?;
        let form = Self::parse(&body);
        if visitor.has_shown(form.get("csrf")) { Ok(form) } else { Err(Failed::Forbidden) }
    }
}

impl Form {
    /// Fields that have been read by other means.
    pub fn of(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    pub fn parse(body: &[u8]) -> Self {
        Self(
            url::form_urlencoded::parse(body)
                .take(FIELDS)
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    /// Empty when it was not sent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// `None` also when nothing but space was typed.
    pub fn filled(&self, name: &str) -> Option<String> {
        Some(self.get(name).trim()).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub fn fields(&self) -> &[(String, String)] {
        &self.0
    }
}

/// What a form's fields show: their values, and what is wrong.
#[derive(Default)]
pub struct Fill {
    values: BTreeMap<String, String>,
    problems: BTreeMap<String, String>,
    /// What ids of the form's fields begin with, where a page has several forms.
    prefix: &'static str,
    /// What is wrong with no field of its own.
    pub general: Option<String>,
    /// The code of what the API refused.
    pub refusal: String,
}

impl Fill {
    /// All that was typed but passwords, which never go back into a page.
    pub fn of(form: &Form) -> Self {
        let kept = form.fields().iter().filter(|(name, _)| !name.contains("password") && name != "csrf");
        Self { values: kept.cloned().collect(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    pub fn within(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Of a field in the page.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.value(name) == value
    }

    pub fn problem(&self, name: &str) -> Option<&str> {
        self.problems.get(name).map(String::as_str)
    }

    /// In the order of `fields`, each with the sentence about it.
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    pub fn is_wrong(&self) -> bool {
        self.general.is_some() || !self.problems.is_empty()
    }

    pub fn wrong(&mut self, name: &str, sentence: String) {
        self.problems.insert(name.to_owned(), sentence);
    }

    /// Puts the API's errors at its fields; errors of none of `fields` are shown above the form. Answers that
    /// do not refuse what was typed are returned.
    pub fn refuse(&mut self, lang: Lang, refused: Refused, fields: &[&str]) -> Result<(), Refused> {
        let problem = match refused {
            Refused::Problem(problem) => problem,
            Refused::Away => {
                self.general = Some(lang.text("error-try-again", &[]));
                return Ok(());
            }
            other => return Err(other),
        };
        self.refusal.clone_from(&problem.code);
        for error in &problem.errors {
            let name = error.pointer.rsplit('/').next().unwrap_or_default();
            match fields.contains(&name) {
                true => self.wrong(name, sentence_for(lang, &error.code, &error.detail)),
                false => self.general = Some(sentence_for(lang, &error.code, &error.detail)),
            }
        }
        if !self.is_wrong() {
            self.general = Some(sentence(lang, &problem));
        }
        Ok(())
    }
}

pub fn sentence(lang: Lang, problem: &Problem) -> String {
    let code = if problem.status == 429 { "too_many_attempts" } else { &problem.code };
    sentence_for(lang, code, &problem.detail)
}

/// In the visitor's language where it has words for the code, else what the API says.
fn sentence_for(lang: Lang, code: &str, detail: &str) -> String {
    let key = format!("problem-{}", code.replace('_', "-"));
    if lang.has(&key) { lang.text(&key, &[]) } else { detail.to_owned() }
}

/// One labelled field.
#[derive(Template)]
#[template(path = "parts/input.html")]
pub struct Input {
    pub id: String,
    pub name: String,
    pub label: String,
    pub kind: String,
    pub value: String,
    pub problem: Option<String>,
    pub autocomplete: String,
    pub needed: bool,
    pub hint: String,
}

#[cfg(test)]
mod tests {
    use crate::api::types::FieldError;

    use super::*;

    fn refusal(code: &str, errors: &[(&str, &str)]) -> Refused {
        let error = |(pointer, code): &(&str, &str)| FieldError {
            pointer: (*pointer).to_owned(),
            code: (*code).to_owned(),
            detail: format!("detail of {code}"),
        };
        let errors = errors.iter().map(error).collect();
        let detail = format!("detail of {code}");
        Refused::Problem(Box::new(Problem { status: 422, code: code.to_owned(), detail, errors }))
    }

    #[test]
    fn a_problem_stands_at_its_field_and_all_other_input_stays() {
        let form = Form::parse(b"csrf=x&email=a%40b&new_password=secret&name=Ada+L");
        let mut fill = Fill::of(&form);
        let refused =
            refusal("validation_failed", &[("/email", "odd_code"), ("/shipping_address/name", "too_long")]);
        fill.refuse(Lang::En, refused, &["email", "name"]).unwrap();
        assert_eq!(fill.problem("email"), Some("detail of odd_code"));
        assert_eq!(fill.problem("name"), Some(Lang::En.text("problem-too-long", &[]).as_str()));
        assert_eq!((fill.value("email"), fill.value("name")), ("a@b", "Ada L"));
        assert_eq!(fill.value("new_password"), "", "a password does not come back");
        assert_eq!(fill.value("csrf"), "");
    }

    #[test]
    fn a_problem_without_a_field_stands_above_the_form() {
        let mut fill = Fill::default();
        fill.refuse(Lang::En, refusal("odd", &[]), &["email"]).unwrap();
        assert_eq!(fill.general.as_deref(), Some("detail of odd"));
        let mut fill = Fill::default();
        fill.refuse(Lang::En, refusal("x", &[("/unknown", "odd")]), &["email"]).unwrap();
        assert_eq!(fill.general.as_deref(), Some("detail of odd"));
        assert!(Fill::default().refuse(Lang::En, Refused::SignedOut, &[]).is_err());
    }

    #[test]
    fn a_form_has_a_bound() {
        assert_eq!(Form::parse("a=1&".repeat(5000).as_bytes()).fields().len(), FIELDS);
        assert_eq!(Form::parse(b"a=1").get("b"), "");
        assert_eq!(Form::parse(b"a=+").filled("a"), None);
    }
}
