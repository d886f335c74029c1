//! Postal addresses: which parts a country needs, the form of its postal codes, and the order of its lines.
//!
//! The rules are data, `countries.tsv`; `convert.py` says where they come from.

mod country;

use serde::{Deserialize, Serialize};

pub use country::{Country, all};

/// A part that is not acceptable.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The part's name, as in JSON.
    pub field: &'static str,
    /// Stable; for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

/// Where a parcel goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ShippingAddress))]
pub struct Address {
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 100,
            pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
        )
    )]
    pub name: String,
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
        )
    )]
    pub line1: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
    pub line2: Option<String>,
    /// Required where the country's addresses need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
    pub city: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
    pub region: Option<String>,
    /// Required where the country's addresses need one, and of its form. Anything goes where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 20, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2, or XK for Kosovo.
    #[cfg_attr(feature = "openapi", schema(schema_with = country::schema))]
    pub country: String,
    /// For the carrier. With the country's code (`+44 20 7946 0958`) or as dialled in the address's country; kept in the
    /// form of E.164 (`+442079460958`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 40, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
    pub phone: Option<String>,
}

/// Characters of a phone number as it may be typed.
const MOST_PHONE: usize = 40;

/// In the order in which faults are reported.
const FIELDS: [&str; 8] = ["name", "line1", "line2", "city", "region", "postal_code", "country", "phone"];

impl Address {
    /// The address as it is kept: as it was sent, but for its phone number, which gets the form of E.164.
    ///
    /// # Errors
    /// names each part that the country's rules or the longest lengths do not allow. What a customer adds to them, such
    /// as a city in Japan, is kept.
    pub fn checked(mut self) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut text = |field, value: &str, needed: bool, most: usize| {
            if needed && value.trim().is_empty() {
                faults.push(fault(field, "too_short", "This must not be blank."));
            } else if value.chars().count() > most {
                faults.push(fault(field, "too_long", format!("At most {most} characters.")));
            }
        };
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        text("name", &self.name, true, 100);
        text("line1", &self.line1, true, 200);
        text("line2", &optional(&self.line2), false, 200);
        text("city", &optional(&self.city), false, 100);
        text("region", &optional(&self.region), false, 200);
        text("postal_code", &optional(&self.postal_code), false, 20);
        text("phone", &optional(&self.phone), false, MOST_PHONE);
        match Country::find(&self.country) {
            Some(country) => self.by_rules(country, &mut faults),
            None => {
                if self.city.as_deref().is_none_or(is_blank) {
                    let code = if self.city.is_none() { "missing_field" } else { "too_short" };
                    faults.push(fault("city", code, "This must not be blank."));
                }
                let detail = "An ISO 3166-1 alpha-2 code, like GB, or XK for Kosovo.";
                faults.push(fault("country", "invalid_country", detail));
            }
        }
        if !faults.is_empty() {
            faults.sort_by_key(|fault| FIELDS.iter().position(|field| *field == fault.field));
            return Err(faults);
        }
        for part in
            [&mut self.line2, &mut self.city, &mut self.region, &mut self.postal_code, &mut self.phone]
        {
            *part = part.take().filter(|text| !is_blank(text));
        }
        Ok(self)
    }

    fn by_rules(&mut self, country: &Country, faults: &mut Vec<Fault>) {
        let name = country.name();
        let blank = |part: &Option<String>| part.as_deref().is_none_or(is_blank);
        let code = |part: &Option<String>| if part.is_none() { "missing_field" } else { "too_short" };
        // Regions alone were never asked for; where addresses have no city, one of the two says where.
        let elsewhere = !country.needs_city() && (!country.needs_region() || !blank(&self.region));
        if blank(&self.city) && !elsewhere {
            let which = if country.needs_city() { "a city" } else { "a region or a city" };
            faults.push(fault("city", code(&self.city), format!("An address in {name} has {which}.")));
        }
        let like = country.like();
        match self.postal_code.as_deref().unwrap_or_default().trim() {
            "" if country.needs_postal_code() => {
                let detail = format!("An address in {name} has a postal code{like}.");
                faults.push(fault("postal_code", code(&self.postal_code), detail));
            }
            // Too long already.
            text if text.chars().count() > 20 => {}
            text if !text.is_empty() && !country.fits(text) => {
                let detail = format!("This is not a postal code of {name}{like}.");
                faults.push(fault("postal_code", "invalid_postal_code", detail));
            }
            _ => {}
        }
        if let Some(text) =
            self.phone.as_deref().filter(|text| !is_blank(text) && text.len() <= 4 * MOST_PHONE)
        {
            match phone(text, country.code()) {
                Some(number) => self.phone = Some(number),
                None => {
                    let detail = format!(
                        "A phone number with its country's code, like +44 20 7946 0958, or as dialled in {name}."
                    );
                    faults.push(fault("phone", "invalid_phone", detail));
                }
            }
        }
    }

    /// The address as it is written on a parcel, a line each, the country last. Lines are in the country's order.
    pub fn lines(&self) -> Vec<String> {
        let optional = [&self.line2, &self.city, &self.region].into_iter().flatten();
        let mut letters = [&self.name, &self.line1].into_iter().chain(optional).flat_map(|text| text.chars());
        let latin = letters.all(|letter| !letter.is_alphabetic() || is_latin(letter));
        match Country::find(&self.country) {
            Some(country) => country.lines(self, latin),
            None => vec![self.name.clone(), self.line1.clone(), self.country.clone()],
        }
    }
}

/// Latin letters: ASCII, Latin-1, Latin Extended A and B, Latin Extended Additional.
fn is_latin(letter: char) -> bool {
    matches!(u32::from(letter), 0..=0x24f | 0x1e00..=0x1eff)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn fault(field: &'static str, code: &'static str, detail: impl Into<String>) -> Fault {
    Fault { field, code, detail: detail.into() }
}

/// A phone number in the form of E.164; `None` when it is none that can be dialled.
fn phone(text: &str, country: &str) -> Option<String> {
    let number = phonenumber::parse(country.parse().ok(), text).ok()?;
    // Extensions are not part of E.164: they would be lost.
    (number.is_valid() && number.extension().is_none())
        .then(|| number.format().mode(phonenumber::Mode::E164).to_string())
}

#[cfg(test)]
mod tests;
