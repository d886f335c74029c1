//! What a mail says.

use anyhow::Context;
use askama::Template;
use prost::Message;
use proto::events;
use proto::order::v1::{
    Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced, OrderRefunded, OrderShipped,
};
use service::Money;
use service::money::Currency;

#[derive(Debug)]
pub(super) struct Mail {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// What the templates fill in; the one for HTML escapes it.
struct Content<'a> {
    subject: &'a str,
    name: &'a str,
    sentences: Vec<String>,
    lines: Vec<Line<'a>>,
    total: String,
    order: &'a str,
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

/// The mail about an event to somebody called `name`. Fails on an event
/// that nobody is to be told of, or that is not whole.
pub(super) fn write(kind: &str, payload: &[u8], name: &str) -> anyhow::Result<Mail> {
    let Told { order, subject, sentences } = tell(kind, payload)?;
    let order = order.context("the event has no order")?;
    let money = currency(&order)?;
    let lines = order.lines.iter().map(|line| {
        let total = money(line.unit_price).checked_mul(line.quantity).context("too much money")?;
        Ok(Line { quantity: line.quantity, name: &line.name, total: total.to_string() })
    });
    let content = Content {
        subject,
        name,
        sentences,
        lines: lines.collect::<anyhow::Result<_>>()?,
        total: money(order.total).to_string(),
        // Older events have no number.
        order: if order.number.is_empty() { &order.id } else { &order.number },
    };
    let (text, html) = (Text { content: &content }.render()?, Html { content: &content }.render()?);
    Ok(Mail { subject: subject.to_owned(), text, html })
}

struct Told {
    order: Option<Order>,
    subject: &'static str,
    sentences: Vec<String>,
}

fn tell(kind: &str, payload: &[u8]) -> anyhow::Result<Told> {
    let told = |order, subject, sentences: &[&str]| Told {
        order,
        subject,
        sentences: sentences.iter().map(|&sentence| sentence.to_owned()).collect(),
    };
    Ok(match kind {
        events::ORDER_PLACED => told(
            OrderPlaced::decode(payload)?.order,
            "We have your order",
            &["Thank you for your order. We have set the goods aside for you and are taking the payment."],
        ),
        events::ORDER_CONFIRMED => told(
            OrderConfirmed::decode(payload)?.order,
            "Your order is confirmed",
            &["Your payment has arrived. We are packing your order."],
        ),
        events::ORDER_CANCELLED => {
            let event = OrderCancelled::decode(payload)?;
            let paid = "What you have paid goes back the way it came.";
            told(event.order, "Your order is cancelled", &[why(&event.reason), paid])
        }
        events::ORDER_SHIPPED => {
            let event = OrderShipped::decode(payload)?;
            let parcel =
                format!("{} carries it; the tracking number is {}.", event.carrier, event.tracking_number);
            told(event.order, "Your order is on its way", &["Your parcel has left our house.", &parcel])
        }
        events::ORDER_DELIVERED => told(
            OrderDelivered::decode(payload)?.order,
            "Your order has arrived",
            &["Your parcel has been delivered. We hope that you like what is in it."],
        ),
        events::ORDER_REFUNDED => {
            let event = OrderRefunded::decode(payload)?;
            let amount = match &event.order {
                Some(order) => currency(order)?(event.amount).to_string(),
                None => String::new(),
            };
            let sentence = format!("We have returned {amount} to you, the way that you paid.");
            told(event.order, "Your money is on its way back", &[&sentence])
        }
        _ => anyhow::bail!("nobody is told of {kind}"),
    })
}

/// What makes money of the order's minor units.
fn currency(order: &Order) -> anyhow::Result<impl Fn(i64) -> Money + use<>> {
    let currency = Currency::from_code(&order.currency).context("the order's currency is unknown")?;
    Ok(move |amount| Money::new(amount, currency))
}

fn why(reason: &str) -> &'static str {
    match reason {
        "payment_declined" => "Your card was declined, so we have cancelled your order.",
        "payment_timeout" => "The payment did not go through in time, so we have cancelled your order.",
        "out_of_stock" => "We have run out of something in your order, so we had to cancel it.",
        "customer" => "You have cancelled your order.",
        _ => "We had to cancel your order.",
    }
}

#[cfg(test)]
mod tests {
    use proto::order::v1::Line as SoldLine;

    use super::*;

    fn order(currency: &str) -> Option<Order> {
        let line = |name: &str, quantity, unit_price| SoldLine {
            name: name.to_owned(),
            quantity,
            unit_price,
            ..SoldLine::default()
        };
        Some(Order {
            id: "018f0000-0000-7000-8000-000000000000".to_owned(),
            lines: vec![line("Mug \"No. 1\" <b>&", 2, 1250), line("Coffee", 1, 5)],
            total: 2505,
            currency: currency.to_owned(),
            ..Order::default()
        })
    }

    #[test]
    fn every_event_about_an_order_has_its_mail() {
        let subjects = [
            (events::ORDER_PLACED, OrderPlaced { order: order("EUR") }.encode_to_vec()),
            (events::ORDER_CONFIRMED, OrderConfirmed { order: order("EUR") }.encode_to_vec()),
            (events::ORDER_DELIVERED, OrderDelivered { order: order("EUR") }.encode_to_vec()),
        ]
        .map(|(kind, payload)| write(kind, &payload, "Ada").unwrap().subject);
        assert_eq!(subjects, ["We have your order", "Your order is confirmed", "Your order has arrived"]);

        let shipped = OrderShipped {
            order: order("EUR"),
            carrier: "DHL".to_owned(),
            tracking_number: "JD0 <1>".to_owned(),
        };
        let shipped = write(events::ORDER_SHIPPED, &shipped.encode_to_vec(), "Ada").unwrap();
        assert!(shipped.text.contains("DHL carries it; the tracking number is JD0 <1>."), "{}", shipped.text);
        assert!(shipped.html.contains("JD0 &#60;1&#62;"), "{}", shipped.html);

        let refunded = OrderRefunded { order: order("EUR"), amount: 1250, ..OrderRefunded::default() };
        let refunded = write(events::ORDER_REFUNDED, &refunded.encode_to_vec(), "Ada").unwrap();
        assert!(refunded.text.contains("We have returned 12.50 EUR to you"), "{}", refunded.text);

        for reason in ["payment_declined", "payment_timeout", "out_of_stock", "customer", "staff", "new"] {
            let cancelled = OrderCancelled {
                order: order("EUR"),
                reason: reason.to_owned(),
                ..OrderCancelled::default()
            };
            let cancelled = write(events::ORDER_CANCELLED, &cancelled.encode_to_vec(), "Ada").unwrap();
            assert!(cancelled.text.contains(why(reason)), "{}", cancelled.text);
        }
    }

    #[test]
    fn letters_say_what_was_bought_in_text_and_in_escaped_html() {
        let payload = OrderPlaced { order: order("EUR") }.encode_to_vec();
        let mail = write(events::ORDER_PLACED, &payload, "<script>alert(1)</script>").unwrap();
        assert!(mail.text.contains("Hello <script>alert(1)</script>,"), "{}", mail.text);
        assert!(mail.text.contains("2 x Mug \"No. 1\" <b>&: 25.00 EUR\n"), "{}", mail.text);
        assert!(mail.text.contains("1 x Coffee: 0.05 EUR\n"), "{}", mail.text);
        assert!(mail.text.contains("Total: 25.05 EUR\n"), "{}", mail.text);
        for forbidden in ["<script", "<b>", "\"No. 1\"", "alert(1)<"] {
            assert!(!mail.html.contains(forbidden), "{}", mail.html);
        }
        assert!(mail.html.contains("Hello &#60;script&#62;alert(1)&#60;/script&#62;,"), "{}", mail.html);
        assert!(mail.html.contains("Mug &#34;No. 1&#34; &#60;b&#62;&#38;"), "{}", mail.html);
        assert!(mail.html.contains("25.05 EUR"), "{}", mail.html);
    }

    #[test]
    fn amounts_have_as_many_decimals_as_their_currency() {
        for (currency, total) in [("JPY", "2505 JPY"), ("KWD", "2.505 KWD"), ("USD", "25.05 USD")] {
            let payload = OrderPlaced { order: order(currency) }.encode_to_vec();
            let mail = write(events::ORDER_PLACED, &payload, "Ada").unwrap();
            assert!(mail.text.contains(&format!("Total: {total}\n")), "{}", mail.text);
        }
    }

    #[test]
    fn an_event_that_is_not_whole_makes_no_mail() {
        for (kind, payload) in [
            (events::ORDER_PLACED, OrderPlaced { order: None }.encode_to_vec()),
            (events::ORDER_PLACED, OrderPlaced { order: order("") }.encode_to_vec()),
            (events::ORDER_REFUNDED, OrderRefunded::default().encode_to_vec()),
            (events::ORDER_PLACED, vec![0xff]),
            (events::USER_DELETED, Vec::new()),
        ] {
            assert!(write(kind, &payload, "Ada").is_err());
        }
    }
}
