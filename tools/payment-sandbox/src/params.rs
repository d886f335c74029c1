//! Form parameters as Stripe takes them, bracketed `metadata[order_id]` included.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::cards;
use crate::currencies;
use crate::error::ApiError;
use crate::intents::Metadata;

/// What is left to take of a request's parameters.
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Of parameters with the same name the last counts, but those of a list, `name[]`, are numbered.
    pub fn parse(form: &[u8]) -> Self {
        let mut params = BTreeMap::new();
        let mut lengths = BTreeMap::<String, usize>::new();
        for (name, value) in url::form_urlencoded::parse(form).into_owned() {
            let name = match name.strip_suffix("[]") {
                Some(list) if !list.starts_with("metadata") => {
                    let length = lengths.entry(list.to_owned()).or_default();
                    *length += 1;
                    format!("{list}[{}]", *length - 1)
                }
                _ => name,
            };
            params.insert(name, value);
        }
        Self(params)
    }

    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// A text, which is never empty: that would unset what is not set yet.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            Some(value) if value.is_empty() => {
                let message =
                    format!("You passed an empty string for '{name}'. Leave it out, or give it a value.");
                Err(ApiError::param("parameter_invalid_empty", name, message))
            }
            value => Ok(value),
        }
    }

    pub fn required(&mut self, name: &'static str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::missing(name))
    }

    /// A text of at most so many characters.
    pub fn short(&mut self, name: &'static str, most: usize) -> Result<Option<String>, ApiError> {
        match self.text(name)? {
            Some(text) if text.chars().count() > most => {
                Err(ApiError::bad(name, format!("Invalid {name}: it has more than {most} characters.")))
            }
            text => Ok(text),
        }
    }

    pub fn email(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.short(name, 800)? {
            Some(text)
                if text.split_once('@').is_none_or(|(user, host)| user.is_empty() || host.is_empty()) =>
            {
                Err(ApiError::param("email_invalid", name, format!("Invalid email address: {text}")))
            }
            text => Ok(text),
        }
    }

    pub fn url(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.short(name, 2048)? {
            Some(text) if url::Url::parse(&text).is_err() => {
                Err(ApiError::param("url_invalid", name, "Not a valid URL"))
            }
            text => Ok(text),
        }
    }

    /// A whole number in this range.
    pub fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let refused = |message: String| Err(ApiError::param("parameter_invalid_integer", name, message));
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return refused(format!("Invalid integer: {text}"));
        }
        let (least, most) = (*range.start(), *range.end());
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            Ok(number) if number < least => {
                refused(format!("This value must be greater than or equal to {least}."))
            }
            Err(_) if text.starts_with('-') => {
                refused(format!("This value must be greater than or equal to {least}."))
            }
            _ => refused(format!("This value must be less than or equal to {most}.")),
        }
    }

    /// An amount of a currency in the provider's units, at least 1.
    pub fn amount(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        // What is above the most of a payment has an error of its own.
        self.integer(name, 1..=u64::MAX)
    }

    /// True or false; as a word in Python too, which is what an SDK of theirs sends.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "True") => Ok(Some(true)),
            Some("false" | "False") => Ok(Some(false)),
            Some(other) => Err(ApiError::bad(name, format!("Invalid boolean: {other}"))),
        }
    }

    /// One of the `allowed` words.
    pub fn word(&mut self, name: &'static str, allowed: &[&str]) -> Result<Option<String>, ApiError> {
        match self.text(name)? {
            Some(word) if !allowed.contains(&word.as_str()) => {
                let message = format!("Invalid {name}: must be one of {}", allowed.join(", "));
                Err(ApiError::bad(name, message))
            }
            word => Ok(word),
        }
    }

    /// What `name[0]`, `name[1]` ... hold; `None` without any.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let mut found = Vec::new();
        while let Some(value) = self.text(&format!("{name}[{}]", found.len()))? {
            found.push(value);
        }
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    /// Whether the only thing that can be expanded here is to be.
    pub fn expand(&mut self, known: &str) -> Result<bool, ApiError> {
        let wanted = self.list("expand")?.unwrap_or_default();
        match wanted.iter().find(|wanted| *wanted != known) {
            None => Ok(!wanted.is_empty()),
            Some(other) => {
                Err(ApiError::bad("expand", format!("This property cannot be expanded ({other}).")))
            }
        }
    }

    /// The name of a test card.
    pub fn payment_method(&mut self) -> Result<Option<String>, ApiError> {
        match self.text("payment_method")? {
            Some(name) if cards::find(&name).is_none() => {
                let message = format!("No such PaymentMethod: '{name}'");
                Err(ApiError::param("resource_missing", "payment_method", message))
            }
            name => Ok(name),
        }
    }

    /// In lower case, one that is taken.
    pub fn currency(&mut self) -> Result<String, ApiError> {
        currencies::named(&self.required("currency")?)
    }

    /// All `metadata[name]`, within Stripe's limits (<https://docs.stripe.com/api/metadata>). An empty value unsets
    /// what is not set.
    pub fn metadata(&mut self) -> Result<Metadata, ApiError> {
        let mut metadata = Metadata::new();
        let named = |param: &String| param.starts_with("metadata[");
        for (param, value) in self.0.extract_if(.., |param, _| named(param)) {
            let name = param.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')).unwrap_or("");
            if name.is_empty() || name.contains(['[', ']']) {
                return Err(ApiError::unknown(&param));
            }
            if name.chars().count() > 40 || value.chars().count() > 500 {
                let message = "Metadata names have up to 40 characters, values up to 500.";
                return Err(ApiError::bad(&param, message));
            }
            if !value.is_empty() {
                metadata.insert(name.to_owned(), value);
            }
        }
        if metadata.len() > 50 {
            return Err(ApiError::bad("metadata", "Metadata has up to 50 names."));
        }
        Ok(metadata)
    }

    /// Refuses what was not taken: a misspelt parameter must not pass unnoticed.
    pub fn end(self) -> Result<(), ApiError> {
        self.0.keys().next().map_or(Ok(()), |param| Err(ApiError::unknown(param)))
    }
}
