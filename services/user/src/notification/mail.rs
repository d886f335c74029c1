//! The text of a mail, in the account's language. The sentences are in `templates/en.txt` and
//! `templates/zh.txt`, a subject and sentences for each event; the words around them are here.

mod event;
mod name;

use std::collections::HashMap;

use anyhow::Context;
use askama::Template;

use crate::account::Language;
use event::{About, Back, Decline, Notice, Why, currency, of_account, read};
pub(super) use name::cleaned;

#[derive(Debug)]
pub(super) struct Mail {
    pub subject: String,
    pub text: String,
    pub html: String,
}

#[derive(Template)]
#[template(path = "en.txt")]
struct English<'a> {
    about: &'a About,
}

#[derive(Template)]
#[template(path = "zh.txt")]
struct Chinese<'a> {
    about: &'a About,
}

/// What is in every mail.
struct Words {
    /// Of the HTML.
    code: &'static str,
    /// Before and after the name.
    hello: (&'static str, &'static str),
    /// The greeting without a name.
    hello_there: &'static str,
    order: &'static str,
    total: &'static str,
}

const ENGLISH: Words =
    Words { code: "en", hello: ("Hello ", ","), hello_there: "Hello,", order: "Order", total: "Total" };
const CHINESE: Words =
    Words {
        code: "zh-CN", hello: ("", "，您好："), hello_there: "您好：", order: "订单", total: "合计"
    };

/// What the templates fill in; the one for HTML escapes it.
struct Content<'a> {
    words: &'static Words,
    subject: &'a str,
    hello: String,
    sentences: Vec<&'a str>,
    link: Option<&'a str>,
    order: Option<Bought<'a>>,
}

/// The order that a mail is about.
struct Bought<'a> {
    number: &'a str,
    lines: Vec<Line<'a>>,
    /// None where the lines are a part of the order.
    total: Option<String>,
}

struct Line<'a> {
    quantity: u32,
    name: &'a str,
    total: String,
}

#[derive(Template)]
#[template(path = "notification.txt")]
struct Text<'a> {
    content: &'a Content<'a>,
}

#[derive(Template)]
#[template(path = "notification.html")]
struct Html<'a> {
    content: &'a Content<'a>,
}

/// The mail about an event or about the account to somebody called `name`, cleaned. Fails on an event that
/// has no mail, or that is incomplete.
pub(super) fn write(kind: &str, payload: &[u8], name: &str, language: Language) -> anyhow::Result<Mail> {
    if let Some(about) = of_account(kind, payload)? {
        return compose(&about, name, language, None);
    }
    let Notice { order, about, contents } = read(kind, payload)?;
    let money = currency(&order)?;
    // Of a parcel only what is in it.
    let parts: HashMap<&str, u32> =
        contents.iter().map(|part| (part.product_id.as_str(), part.quantity)).collect();
    let lines = order.lines.iter().filter_map(|line| {
        let quantity = match parts.get(line.product_id.as_str()) {
            Some(quantity) => *quantity,
            None if parts.is_empty() => line.quantity,
            None => return None,
        };
        let total = money(line.unit_price).checked_mul(quantity).context("too much money");
        Some(total.map(|total| Line { quantity, name: &line.name, total: total.to_string() }))
    });
    let mut lines = lines.collect::<anyhow::Result<Vec<_>>>()?;
    let units = |lines: u64, more: u32| lines + u64::from(more);
    let whole = lines.iter().map(|line| line.quantity).fold(0, units)
        == order.lines.iter().map(|line| line.quantity).fold(0, units);
    if matches!(about, About::Delivered) {
        // What was refunded before it left has not arrived.
        lines.clear();
    }
    let bought = Bought {
        // Older events have no number.
        number: if order.number.is_empty() { &order.id } else { &order.number },
        total: (whole && !lines.is_empty()).then(|| money(order.total).to_string()),
        lines,
    };
    compose(&about, name, language, Some(bought))
}

fn compose(about: &About, name: &str, language: Language, order: Option<Bought<'_>>) -> anyhow::Result<Mail> {
    let (said, words) = match language {
        Language::En => (English { about }.render()?, &ENGLISH),
        Language::Zh => (Chinese { about }.render()?, &CHINESE),
    };
    let mut said = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let subject = said.next().context("the template says nothing")?;
    let link = match about {
        About::PasswordReset(ticket) | About::ConfirmAddress(ticket) | About::ConfirmChange(ticket) => {
            ticket.link.as_deref()
        }
        _ => None,
    };
    let hello = match name {
        "" => words.hello_there.to_owned(),
        name => [words.hello.0, name, words.hello.1].concat(),
    };
    let content = Content { words, subject, hello, sentences: said.collect(), link, order };
    let (text, html) = (Text { content: &content }.render()?, Html { content: &content }.render()?);
    Ok(Mail { subject: subject.to_owned(), text, html })
}

#[cfg(test)]
mod tests;
