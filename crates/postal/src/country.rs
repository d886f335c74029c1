//! The rules of one country.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use regex::Regex;

use crate::Address;

/// Tab-separated: code, name, lines, lines in Latin script, required parts, postal code, its example.
static DATA: &str = include_str!("countries.tsv");

/// In Google's data and no country of ISO 3166-1: parcels to them go by way of Saint Helena (SH).
const NOT_ASSIGNED: [&str; 2] = ["AC", "TA"];

pub struct Country {
    code: &'static str,
    name: &'static str,
    /// `%N` and so on, each a part; `%n` ends a line.
    lines: &'static str,
    /// Empty when they are the same.
    latin_lines: &'static str,
    required: &'static str,
    postal_code: &'static str,
    example: &'static str,
    pattern: OnceLock<Option<Regex>>,
}

static COUNTRIES: LazyLock<HashMap<&str, Country>> = LazyLock::new(|| {
    let rows = DATA.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(Country::read)
        .filter(|country| !NOT_ASSIGNED.contains(&country.code))
        .map(|country| (country.code, country))
        .collect()
});

/// Every country that there are addresses in.
pub fn all() -> impl Iterator<Item = &'static Country> {
    COUNTRIES.values()
}

impl Country {
    fn read(row: &'static str) -> Option<Self> {
        let mut cells = row.split('\t');
        let mut cell = || cells.next();
        Some(Self {
            code: cell()?,
            name: cell()?,
            lines: cell()?,
            latin_lines: cell()?,
            required: cell()?,
            postal_code: cell()?,
            example: cell()?,
            pattern: OnceLock::new(),
        })
    }

    /// The country of an upper-case code of ISO 3166-1 alpha-2, or XK.
    pub fn find(code: &str) -> Option<&'static Self> {
        COUNTRIES.get(code)
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    /// In English and capitals, as on a parcel.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn needs_city(&self) -> bool {
        self.required.contains('C')
    }

    pub(crate) fn needs_region(&self) -> bool {
        self.required.contains('S')
    }

    pub fn needs_postal_code(&self) -> bool {
        self.required.contains('Z')
    }

    /// Whether this may be a postal code here. It may when nothing is known of the country's.
    pub fn fits(&self, text: &str) -> bool {
        self.pattern().is_none_or(|pattern| pattern.is_match(text))
    }

    fn pattern(&self) -> Option<&Regex> {
        let compile = || {
            let pattern = (!self.postal_code.is_empty()).then_some(self.postal_code)?;
            Regex::new(&format!("(?i)^(?:{pattern})$")).ok()
        };
        self.pattern.get_or_init(compile).as_ref()
    }

    /// `, like 1001`, where an example is known.
    pub(crate) fn like(&self) -> String {
        if self.example.is_empty() { String::new() } else { format!(", like {}", self.example) }
    }

    pub(crate) fn lines(&self, address: &Address, latin: bool) -> Vec<String> {
        let order = if latin && !self.latin_lines.is_empty() { self.latin_lines } else { self.lines };
        let [city, region, postal_code] = [&address.city, &address.region, &address.postal_code]
            .map(|part| part.as_deref().unwrap_or_default());
        let mut lines = Vec::new();
        for line in order.split("%n") {
            let parts = [
                ("%N", &*address.name),
                ("%A", &address.line1),
                ("%C", city),
                ("%S", region),
                ("%Z", postal_code),
                ("%O", ""),
                ("%D", ""),
                ("%X", ""),
            ];
            let here = parts.iter().filter(|(part, _)| line.contains(part));
            // A line of words alone, such as a country's own name, stays.
            let words = here.clone().count() == 0;
            if words || here.clone().any(|(_, text)| !text.is_empty()) {
                let text = here.fold(line.to_owned(), |line, (part, text)| line.replace(part, text));
                lines.push(text.trim_matches([' ', ',', '-', '/']).to_owned());
            }
            if line.contains("%A") {
                lines.extend(address.line2.clone());
                // Given, and without a place in this country's lines: kept all the same.
                let extra = [("%C", city), ("%S", region), ("%Z", postal_code)];
                let extra = extra.iter().filter(|(part, text)| !order.contains(part) && !text.is_empty());
                lines.extend(extra.map(|(_, text)| (*text).to_owned()));
            }
        }
        lines.retain(|line| !line.is_empty());
        lines.push(self.name.to_owned());
        lines
    }
}

/// One of the codes.
#[cfg(feature = "openapi")]
pub(crate) fn schema() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};

    let mut codes: Vec<_> = all().map(Country::code).collect();
    codes.sort_unstable();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).build()
}
