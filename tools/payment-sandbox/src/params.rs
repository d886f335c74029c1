//! Form parameters as Stripe takes them, bracketed `metadata[order_id]` included.

use std::collections::BTreeMap;

use crate::cards;
use crate::error::ApiError;
use crate::intents::Metadata;

/// The largest amount, in minor units. Stripe's is 99,999,999 for most currencies, 12 digits for a few.
const MAX_AMOUNT: u64 = 999_999_999_999;

/// Parameters of Stripe's that change nothing here.
const IGNORED: [&str; 10] = [
    "automatic_payment_methods",
    "confirmation_method",
    "description",
    "error_on_requires_action",
    "expand",
    "off_session",
    "payment_method_types",
    "receipt_email",
    "return_url",
    "statement_descriptor_suffix",
];

/// What is left to take of a request's parameters.
pub struct Params(BTreeMap<String, String>);

impl Params {
    pub fn parse(form: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(form).into_owned().collect())
    }

    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// A text; an empty one counts as not given.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// An amount in minor units, at least 1.
    pub fn amount(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid_integer(name, &text));
        }
        match text.parse() {
            Ok(amount @ 1..=MAX_AMOUNT) => Ok(Some(amount)),
            Ok(0) => Err(ApiError::param("amount_too_small", name, "The amount must be at least 1.")),
            _ if text.starts_with('-') => {
                Err(ApiError::param("amount_too_small", name, "The amount must be at least 1."))
            }
            _ => Err(ApiError::param(
                "amount_too_large",
                name,
                format!("The amount must be at most {MAX_AMOUNT}."),
            )),
        }
    }

    /// How many of a list: 1 to 100, or 10.
    pub fn limit(&mut self) -> Result<usize, ApiError> {
        match self.amount("limit")? {
            Some(limit @ 1..=100) => Ok(limit as usize),
            None => Ok(10),
            Some(_) => {
                Err(ApiError::param("parameter_invalid_integer", "limit", "The limit is at most 100."))
            }
        }
    }

    /// A time in Unix seconds.
    pub fn time(&mut self, name: &'static str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = digits.then(|| text.parse().ok()).flatten();
        seconds.map(Some).ok_or_else(|| invalid_integer(name, &text))
    }

    /// One of the `allowed` words.
    pub fn word(&mut self, name: &'static str, allowed: &[&str]) -> Result<Option<String>, ApiError> {
        match self.text(name) {
            Some(word) if !allowed.contains(&word.as_str()) => {
                let message = format!("Invalid {name}: must be one of {}.", allowed.join(", "));
                Err(ApiError::param("parameter_invalid_enum", name, message))
            }
            word => Ok(word),
        }
    }

    /// The name of a test card.
    pub fn payment_method(&mut self) -> Result<Option<String>, ApiError> {
        match self.text("payment_method") {
            Some(name) if cards::find(&name).is_none() => {
                let message = format!("No such PaymentMethod: '{name}'");
                Err(ApiError::param("resource_missing", "payment_method", message))
            }
            name => Ok(name),
        }
    }

    /// Three letters, in lower case.
    pub fn currency(&mut self) -> Result<String, ApiError> {
        let currency = self.text("currency").ok_or_else(|| ApiError::missing("currency"))?.to_lowercase();
        if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Ok(currency);
        }
        Err(ApiError::param("parameter_invalid_enum", "currency", format!("Invalid currency: {currency}")))
    }

    /// All `metadata[name]`, within Stripe's limits (<https://docs.stripe.com/api/metadata>).
    pub fn metadata(&mut self) -> Result<Metadata, ApiError> {
        let mut metadata = Metadata::new();
        let named = |param: &String| param.starts_with("metadata[");
        for (param, value) in self.0.extract_if(.., |param, _| named(param)) {
            let name = param.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')).unwrap_or("");
            if name.is_empty() || name.contains(['[', ']']) {
                return Err(ApiError::param(
                    "parameter_unknown",
                    &param,
                    "Metadata is metadata[name]=value.",
                ));
            }
            if name.chars().count() > 40 || value.chars().count() > 500 {
                let message = "Metadata names have up to 40 characters, values up to 500.";
                return Err(ApiError::param("parameter_invalid_string", &param, message));
            }
            metadata.insert(name.to_owned(), value);
        }
        if metadata.len() > 50 {
            let message = "Metadata has up to 50 names.";
            return Err(ApiError::param("parameter_invalid_string", "metadata", message));
        }
        Ok(metadata)
    }

    /// Refuses what was neither taken nor is ignored: a misspelt parameter must not pass unnoticed.
    pub fn end(self) -> Result<(), ApiError> {
        for param in self.0.keys() {
            let name = param.split('[').next().unwrap_or(param);
            if !IGNORED.contains(&name) {
                let message = format!("Received unknown parameter: {param}");
                return Err(ApiError::param("parameter_unknown", param, message));
            }
        }
        Ok(())
    }
}

fn invalid_integer(name: &'static str, text: &str) -> ApiError {
    ApiError::param("parameter_invalid_integer", name, format!("Invalid integer: {text}"))
}
