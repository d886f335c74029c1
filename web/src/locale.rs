//! Languages: messages by Fluent, and numbers, money and times by CLDR's rules.

use std::borrow::Cow;
use std::sync::LazyLock;

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use icu_calendar::Gregorian;
use icu_datetime::FixedCalendarDateTimeFormatter;
use icu_datetime::fieldsets::YMDT;
use icu_datetime::input::{Date, DateTime, Time};
use icu_datetime::options::TimePrecision;
use icu_decimal::DecimalFormatter;
use icu_decimal::input::Decimal;
use icu_locale_core::{Locale, locale};
use iso_currency::Currency;
use time::OffsetDateTime;

use crate::api::types::Money;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    En,
    Zh,
}

static BUNDLES: LazyLock<[FluentBundle<FluentResource>; 2]> =
    LazyLock::new(|| [Lang::En, Lang::Zh].map(bundle));

thread_local! {
    static FORMATS: [Formats; 2] = [Lang::En, Lang::Zh].map(Formats::new);
}

fn bundle(lang: Lang) -> FluentBundle<FluentResource> {
    // A test reads the same text: what is wrong in it does not get here.
    let resource = FluentResource::try_new(lang.messages().to_owned()).unwrap_or_else(|(read, _)| read);
    let mut bundle = FluentBundle::new_concurrent(vec![lang.code().parse().unwrap_or_default()]);
    // The isolating marks of bidirectional text would be copied with prices and numbers.
    bundle.set_use_isolating(false);
    bundle.add_resource_overriding(resource);
    bundle
}

/// Not `Sync`, so that each thread has its own.
struct Formats {
    decimal: Option<DecimalFormatter>,
    moment: Option<FixedCalendarDateTimeFormatter<Gregorian, YMDT>>,
}

impl Formats {
    fn new(lang: Lang) -> Self {
        let locale = lang.locale();
        let fields = YMDT::medium().with_time_precision(TimePrecision::Minute);
        Self {
            decimal: DecimalFormatter::try_new((&locale).into(), Default::default()).ok(),
            moment: FixedCalendarDateTimeFormatter::try_new((&locale).into(), fields).ok(),
        }
    }
}

impl Lang {
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// For the `lang` attribute.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-Hans",
        }
    }

    pub fn of_code(code: &str) -> Option<Self> {
        [Self::En, Self::Zh].into_iter().find(|lang| lang.code() == code)
    }

    /// The language that a browser prefers (`Accept-Language`) of those that there are.
    pub fn preferred(accepted: &str) -> Self {
        let weighted = accepted.split(',').take(20).filter_map(|range| {
            let mut parts = range.trim().split(';');
            let code = parts.next()?.split('-').next()?.to_ascii_lowercase();
            let weight =
                parts.find_map(|part| part.trim().strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            Some((Self::of_code(&code)?, weight)).filter(|(_, weight)| *weight > 0.0)
        });
        // Of equals the first.
        let best = weighted.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map_or(Self::En, |(lang, _)| lang)
    }

    fn messages(self) -> &'static str {
        match self {
            Self::En => {
                concat!(include_str!("../locales/en.ftl"), "\n", include_str!("../locales/admin.en.ftl"))
            }
            Self::Zh => {
                concat!(include_str!("../locales/zh.ftl"), "\n", include_str!("../locales/admin.zh.ftl"))
            }
        }
    }

    /// English as most of the world writes dates.
    fn locale(self) -> Locale {
        match self {
            Self::En => locale!("en-GB"),
            Self::Zh => locale!("zh-Hans"),
        }
    }

    fn bundle(self) -> &'static FluentBundle<FluentResource> {
        &BUNDLES[self as usize]
    }

    pub fn has(self, key: &str) -> bool {
        self.bundle().has_message(key)
    }

    /// The message, or its name where there is none.
    pub fn text(self, key: &str, args: &[(&str, FluentValue<'_>)]) -> String {
        let bundle = self.bundle();
        let Some(pattern) = bundle.get_message(key).and_then(|message| message.value()) else {
            tracing::warn!(key, "locale.no_message");
            return key.to_owned();
        };
        let args: FluentArgs =
            args.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())).collect();
        bundle.format_pattern(pattern, Some(&args), &mut Vec::new()).into_owned()
    }

    pub fn money(self, money: &Money) -> String {
        let symbol = self.symbol(&money.currency);
        let number = decimal(money);
        let shown = FORMATS.with(|formats| {
            formats[self as usize].decimal.as_ref().map(|format| format.format(&number).to_string())
        });
        format!("{symbol}{}", shown.unwrap_or_else(|| number.to_string()))
    }

    /// What CLDR puts before an amount; a code is followed by a space that does not break.
    fn symbol(self, currency: &str) -> Cow<'static, str> {
        Cow::Borrowed(match (currency, self) {
            ("EUR", _) => "€",
            ("GBP", _) => "£",
            ("INR", _) => "₹",
            ("KRW", _) => "₩",
            ("USD", Self::En) => "US$",
            ("USD", Self::Zh) => "US$",
            ("CNY", Self::En) => "CN¥",
            ("CNY", Self::Zh) => "¥",
            ("JPY", _) => "JP¥",
            (code, _) => return Cow::Owned(format!("{code}\u{a0}")),
        })
    }

    /// In UTC, as only the browser knows the visitor's own.
    pub fn moment(self, at: OffsetDateTime) -> String {
        let at = at.to_offset(time::UtcOffset::UTC);
        let date = Date::try_new_gregorian(at.year(), u8::from(at.month()), at.day());
        let time = Time::try_new(at.hour(), at.minute(), at.second(), 0);
        let shown = date.ok().zip(time.ok()).and_then(|(date, time)| {
            FORMATS.with(|formats| {
                let format = formats[self as usize].moment.as_ref()?;
                Some(format.format(&DateTime { date, time }).to_string())
            })
        });
        shown.map(|text| format!("{text} UTC")).unwrap_or_default()
    }
}

/// In major units, as machines read it: `19.90`.
pub fn plain(money: &Money) -> String {
    decimal(money).to_string()
}

/// What somebody typed in major units, `19.9` or `19.90`, in minor ones. No mark between thousands is taken: it would be
/// another number elsewhere.
pub fn minor(text: &str, currency: &str) -> Option<i64> {
    let digits = usize::try_from(digits(currency)).ok()?;
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = !whole.is_empty() && whole.len() <= 15 && part.len() <= digits && plain(whole) && plain(part);
    fits.then(|| format!("{whole}{part:0<digits$}").parse().ok())?
}

fn digits(currency: &str) -> i16 {
    let digits = Currency::from_code(currency).map_or(2, |known| known.exponent().unwrap_or(0));
    i16::try_from(digits).unwrap_or(0)
}

fn decimal(money: &Money) -> Decimal {
    let digits = digits(&money.currency);
    let mut number = Decimal::from(money.amount);
    number.multiply_pow10(-digits);
    number.pad_end(-digits);
    number
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use time::macros::datetime;

    use super::*;

    fn money(amount: i64, currency: &str) -> Money {
        Money { amount, currency: currency.to_owned() }
    }

    #[test]
    fn money_has_its_currencys_digits_and_the_languages_marks() {
        assert_eq!(Lang::En.money(&money(1_234_990, "EUR")), "€12,349.90");
        assert_eq!(Lang::Zh.money(&money(199, "USD")), "US$1.99");
        assert_eq!(Lang::En.money(&money(1999, "JPY")), "JP¥1,999");
        assert_eq!(Lang::En.money(&money(1999, "KWD")), "KWD\u{a0}1.999");
        assert_eq!(Lang::Zh.money(&money(5, "CNY")), "¥0.05");
        assert_eq!(Lang::En.money(&money(0, "EUR")), "€0.00");
        assert_eq!(plain(&money(1990, "EUR")), "19.90");
    }

    #[test]
    fn an_amount_is_read_as_it_is_written() {
        for (text, currency, amount) in [
            ("19.90", "EUR", 1990),
            (" 19.9 ", "EUR", 1990),
            ("19", "EUR", 1900),
            ("0", "JPY", 0),
            ("1.999", "KWD", 1999),
        ] {
            assert_eq!(minor(text, currency), Some(amount), "{text}");
        }
        for text in ["", ".", ".5", "1,234", "1.999", "-1", "+1", "1e3", "1.2.3", "9999999999999999"] {
            assert_eq!(minor(text, "EUR"), None, "{text}");
        }
        assert_eq!(minor("1.5", "JPY"), None);
    }

    #[test]
    fn a_time_is_written_as_the_language_does() {
        let at = datetime!(2026-11-30 07:05:09 UTC);
        assert_eq!(Lang::En.moment(at), "30 Nov 2026, 07:05 UTC");
        assert_eq!(Lang::Zh.moment(at), "2026年11月30日 07:05 UTC");
    }

    #[test]
    fn the_language_is_the_one_that_the_browser_likes_best() {
        for (accepted, lang) in [
            ("", Lang::En),
            ("zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh),
            ("de-DE,de;q=0.9,zh;q=0.3,en;q=0.8", Lang::En),
            ("fr, zh;q=0.1", Lang::Zh),
            ("zh;q=0, *", Lang::En),
            (";;;,q=,zh;q=x", Lang::Zh),
        ] {
            assert_eq!(Lang::preferred(accepted), lang, "{accepted}");
        }
    }

    fn keys(lang: Lang) -> BTreeSet<String> {
        let resource = FluentResource::try_new(lang.messages().to_owned()).expect("it can be read");
        let ids = resource.entries().filter_map(|entry| match entry {
            fluent_syntax::ast::Entry::Message(message) => Some(message.id.name.to_owned()),
            _ => None,
        });
        ids.collect()
    }

    fn sources(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => sources(&entry.path(), all),
                false => all.push_str(&fs::read_to_string(entry.path()).unwrap()),
            }
        }
    }

    #[test]
    fn all_languages_have_the_same_messages() {
        assert_eq!(keys(Lang::En), keys(Lang::Zh));
    }

    /// Whoever asks for a message names it, by `t`, `tn`, `tv` or `text`, or as the label of an `input`.
    #[test]
    fn each_message_that_is_asked_for_exists() {
        let mut text = String::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        sources(&root.join("templates"), &mut text);
        let labels: Vec<_> = text
            .match_indices("p.input(")
            .filter_map(|(at, _)| text[at..].split('"').nth(3).map(str::to_owned))
            .collect();
        sources(&root.join("src"), &mut text);
        let keys = keys(Lang::En);
        for label in labels {
            assert!(keys.contains(&label), "no message {label}");
        }
        for call in ["t(\"", "tn(\"", "tv(\"", "text(\""] {
            let calls = text.match_indices(call).filter(|(at, _)| {
                let before = text[..*at].chars().next_back();
                before.is_some_and(|before| !before.is_alphanumeric() && before != '_')
            });
            for (at, _) in calls {
                let key = text[at + call.len()..].split('"').next().unwrap_or_default();
                let names = key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
                assert!(!names || key.is_empty() || keys.contains(key), "no message {key}");
            }
        }
    }
}
