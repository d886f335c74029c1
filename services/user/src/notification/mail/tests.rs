use prost::Message;
use proto::events;
use proto::order::v1::{
    self as order_events, Destination, Line as SoldLine, Order, OrderCancelled, OrderConfirmed,
    OrderDelivered, OrderPlaced, OrderRefunded, OrderShipped, Restock,
};

use super::*;
use crate::notification::{PASSWORD_CHANGED, PASSWORD_RESET, Ticket};

fn write(kind: &str, payload: &[u8], name: &str) -> anyhow::Result<Mail> {
    super::write(kind, payload, name, Language::En)
}

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

fn named(brand: &str) -> Option<order_events::Card> {
    Some(order_events::Card { brand: brand.to_owned(), last4: "4242".to_owned() })
}

fn to(town: &str) -> Option<Destination> {
    Some(Destination { recipient: "Ada <b>".to_owned(), town: town.to_owned() })
}

fn confirmed(
    order: Option<Order>,
    card: Option<order_events::Card>,
    ships_to: Option<Destination>,
) -> Vec<u8> {
    OrderConfirmed { order, card, ships_to }.encode_to_vec()
}

/// The sentences of a mail in both languages, English first.
fn sentences(kind: &str, payload: &[u8]) -> [Vec<String>; 2] {
    [Language::En, Language::Zh].map(|language| {
        let text = super::write(kind, payload, "Ada", language).unwrap().text;
        text.split("\n\n").nth(1).unwrap().lines().map(str::to_owned).collect()
    })
}

#[test]
fn mails_say_which_card_and_where_to_as_far_as_that_is_known() {
    for (card, ships_to, english, chinese) in [
        (
            named("visa"),
            to("Hull"),
            vec![
                "Your payment has arrived. We are packing your order.",
                "You have paid with your Visa card ending 4242.",
                "It ships to Ada <b> in Hull.",
            ],
            vec![
                "我们已收到您的付款，正在为您打包。",
                "您使用尾号为 4242 的 Visa 卡付款。",
                "收件人：Ada <b>（Hull）。",
            ],
        ),
        (
            named("unknown"),
            to(""),
            vec![
                "Your payment has arrived. We are packing your order.",
                "You have paid with your card ending 4242.",
                "It ships to Ada <b>.",
            ],
            vec![
                "我们已收到您的付款，正在为您打包。",
                "您使用尾号为 4242 的银行卡付款。",
                "收件人：Ada <b>。",
            ],
        ),
        // From before events had either.
        (
            None,
            None,
            vec!["Your payment has arrived. We are packing your order."],
            vec!["我们已收到您的付款，正在为您打包。"],
        ),
    ] {
        let payload = confirmed(order("EUR"), card, ships_to);
        assert_eq!(sentences(events::ORDER_CONFIRMED, &payload), [english, chinese]);
        let html = write(events::ORDER_CONFIRMED, &payload, "Ada").unwrap().html;
        assert!(!html.contains("<b>"), "{html}");
    }
    for (card, english, chinese) in [
        (
            named("amex"),
            "We have returned 12.50 EUR to your American Express card ending 4242.",
            "我们已将 12.50 EUR 退回您尾号为 4242 的 American Express 卡。",
        ),
        (
            named(""),
            "We have returned 12.50 EUR to your card ending 4242.",
            "我们已将 12.50 EUR 退回您尾号为 4242 的银行卡。",
        ),
        (
            None,
            "We have returned 12.50 EUR to you, the way that you paid.",
            "我们已按您的付款方式退还 12.50 EUR。",
        ),
    ] {
        let refunded = OrderRefunded { order: order("EUR"), amount: 1250, card, ..Default::default() };
        let said = sentences(events::ORDER_REFUNDED, &refunded.encode_to_vec());
        assert_eq!(said, [vec![english], vec![chinese]]);
    }
    let mut shipped = OrderShipped {
        order: order("EUR"),
        carrier: "DHL".to_owned(),
        tracking_number: "JD1".to_owned(),
        ships_to: to("Hull"),
        ..OrderShipped::default()
    };
    let [english, chinese] = sentences(events::ORDER_SHIPPED, &shipped.encode_to_vec());
    assert_eq!(english[2..], ["It ships to Ada <b> in Hull."]);
    assert_eq!(chinese[2..], ["收件人：Ada <b>（Hull）。"]);
    shipped.ships_to = None;
    let [english, chinese] = sentences(events::ORDER_SHIPPED, &shipped.encode_to_vec());
    assert_eq!((english.len(), chinese.len()), (2, 2));
}

#[test]
fn a_cancellation_says_why_and_what_becomes_of_the_money() {
    let cancelled = |decline_reason: Option<&str>, card, returns| OrderCancelled {
        order: order("EUR"),
        reason: if decline_reason.is_some() { "payment_declined" } else { "customer" }.to_owned(),
        decline_reason: decline_reason.map(str::to_owned),
        returns: Some(returns),
        card,
    };
    let said = |event: OrderCancelled| sentences(events::ORDER_CANCELLED, &event.encode_to_vec());
    assert_eq!(
        said(cancelled(None, named("visa"), 2505)),
        [
            ["You have cancelled your order.", "We return 25.05 EUR to your Visa card ending 4242.",],
            ["您取消了您的订单。", "我们将把 25.05 EUR 退回您尾号为 4242 的 Visa 卡。"],
        ]
    );
    assert_eq!(
        said(cancelled(None, None, 2505)),
        [
            ["You have cancelled your order.", "We return 25.05 EUR to you, the way that you paid."],
            ["您取消了您的订单。", "我们将按您的付款方式退还 25.05 EUR。"],
        ]
    );
    for (reason, english, chinese) in [
        ("declined", "Your bank can tell you why.", "具体原因请咨询您的银行。"),
        (
            "insufficient_funds",
            "Your bank says that there is not enough money for it.",
            "您的银行表示余额不足。",
        ),
        ("expired_card", "The card has expired.", "该卡已过期。"),
        (
            "incorrect_details",
            "The card's number, date or security code was not right.",
            "卡号、有效期或安全码有误。",
        ),
        (
            "authentication_failed",
            "Your bank wanted you to confirm the payment, and that did not work.",
            "您的银行要求您确认付款，但未能完成。",
        ),
        (
            "card_not_supported",
            "The card is not for such purchases, or not for this currency.",
            "该卡不支持此类交易或币种。",
        ),
        (
            "limit_exceeded",
            "The card was used too often, or for more than its limit.",
            "该卡的使用次数过多，或金额超出限额。",
        ),
        ("amount_not_accepted", "Such an amount can't be paid by card.", "这一金额无法用银行卡支付。"),
        (
            "try_again_later",
            "Your bank could not be reached. The same card may do later.",
            "当时无法联系您的银行，稍后可用同一张卡重试。",
        ),
    ] {
        let [in_english, in_chinese] = said(cancelled(Some(reason), None, 0));
        let first = "Your card was declined, so we have cancelled your order.";
        assert_eq!(in_english, [first, english, "Nothing was charged."], "{reason}");
        assert_eq!(in_chinese[1..], [chinese, "我们没有向您收取任何款项。"], "{reason}");
    }
    // A reason that a later release knows.
    let [in_english, in_chinese] = said(cancelled(Some("new"), None, 0));
    assert_eq!((in_english.len(), in_chinese.len()), (2, 2));
}

#[test]
fn of_what_costs_nothing_no_mail_speaks_of_a_payment() {
    let mut free = order("EUR").unwrap();
    free.total = 0;
    for (kind, payload) in [
        (events::ORDER_PLACED, OrderPlaced { order: Some(free.clone()) }.encode_to_vec()),
        (events::ORDER_CONFIRMED, confirmed(Some(free), None, None)),
    ] {
        let [english, chinese] = sentences(kind, &payload).map(|sentences| sentences.concat());
        assert!(!english.contains("payment"), "{english}");
        assert!(!chinese.contains("货款") && !chinese.contains("您的付款"), "{chinese}");
    }
}

#[test]
fn every_event_about_an_order_has_its_mail() {
    let subjects = [
        (events::ORDER_PLACED, OrderPlaced { order: order("EUR") }.encode_to_vec()),
        (events::ORDER_CONFIRMED, confirmed(order("EUR"), None, None)),
        (events::ORDER_DELIVERED, OrderDelivered { order: order("EUR") }.encode_to_vec()),
    ]
    .map(|(kind, payload)| write(kind, &payload, "Ada").unwrap().subject);
    assert_eq!(subjects, ["We have your order", "Your order is confirmed", "Your order has arrived"]);

    let shipped = OrderShipped {
        order: order("EUR"),
        carrier: "DHL".to_owned(),
        tracking_number: "JD0 <1>".to_owned(),
        ..OrderShipped::default()
    };
    let shipped = write(events::ORDER_SHIPPED, &shipped.encode_to_vec(), "Ada").unwrap();
    assert!(shipped.text.contains("DHL carries it; the tracking number is JD0 <1>."), "{}", shipped.text);
    assert!(shipped.html.contains("JD0 &#60;1&#62;"), "{}", shipped.html);

    let refunded = OrderRefunded { order: order("EUR"), amount: 1250, ..OrderRefunded::default() };
    let refunded = write(events::ORDER_REFUNDED, &refunded.encode_to_vec(), "Ada").unwrap();
    assert!(refunded.text.contains("We have returned 12.50 EUR to you"), "{}", refunded.text);

    for (returns, reason, says) in [
        (
            Some(0),
            "payment_declined",
            "Your card was declined, so we have cancelled your order.\nNothing was charged.",
        ),
        (None, "payment_declined", "Nothing was charged."),
        (Some(0), "payment_timeout", "Nothing was charged."),
        (Some(0), "customer", "You have cancelled your order.\nNothing was charged."),
        (Some(2505), "customer", "We return 25.05 EUR to you, the way that you paid."),
        (Some(1), "out_of_stock", "We return 0.01 EUR to you"),
        (None, "staff", "If you have paid, it goes back the way it came."),
        (Some(0), "new", "We had to cancel your order."),
    ] {
        let cancelled =
            OrderCancelled { order: order("EUR"), reason: reason.to_owned(), returns, ..Default::default() };
        let cancelled = write(events::ORDER_CANCELLED, &cancelled.encode_to_vec(), "Ada").unwrap();
        assert!(cancelled.text.contains(says), "{reason}: {}", cancelled.text);
        let goes_back = cancelled.text.contains("goes back") || cancelled.text.contains("We return");
        assert_eq!(goes_back, !cancelled.text.contains("Nothing was charged."), "{}", cancelled.text);
    }
}

#[test]
fn a_mail_about_a_parcel_has_its_contents() {
    let mut whole = order("EUR").unwrap();
    whole.number = "F7K2M-9XHRR".to_owned();
    whole.lines[0].product_id = "mug".to_owned();
    whole.lines[1].product_id = "coffee".to_owned();
    let mut event = OrderShipped {
        order: Some(whole),
        carrier: "DHL".to_owned(),
        tracking_number: "JD1".to_owned(),
        contents: vec![Restock { product_id: "mug".to_owned(), quantity: 1 }],
        more_follows: true,
        ..OrderShipped::default()
    };
    let part = write(events::ORDER_SHIPPED, &event.encode_to_vec(), "Ada").unwrap();
    assert!(part.text.contains("Order F7K2M-9XHRR\n"), "{}", part.text);
    assert!(part.text.contains("The rest of your order follows."), "{}", part.text);
    assert!(part.text.contains("1 x Mug \"No. 1\" <b>&: 12.50 EUR\n"), "{}", part.text);
    assert!(!part.text.contains("Coffee") && !part.text.contains("Total"), "{}", part.text);
    event.corrected = true;
    let other = write(events::ORDER_SHIPPED, &event.encode_to_vec(), "Ada").unwrap();
    assert_eq!(other.subject, "Your parcel has another number");
    (event.carrier, event.tracking_number) = (String::new(), String::new());
    let fetched = write(events::ORDER_SHIPPED, &event.encode_to_vec(), "Ada").unwrap();
    assert_eq!(fetched.subject, "You have your goods");
}

#[test]
fn every_mail_is_there_in_chinese() {
    let order = || order("EUR");
    let shipped = |carrier: &str, corrected| OrderShipped {
        order: order(),
        carrier: carrier.to_owned(),
        tracking_number: "JD1".to_owned(),
        corrected,
        more_follows: true,
        ..OrderShipped::default()
    };
    let mut mails = vec![
        (events::ORDER_PLACED, OrderPlaced { order: order() }.encode_to_vec()),
        (events::ORDER_CONFIRMED, confirmed(order(), None, None)),
        (events::ORDER_CONFIRMED, confirmed(order(), named("visa"), to("Hull"))),
        (events::ORDER_CONFIRMED, confirmed(order(), named("new"), to(""))),
        (events::ORDER_DELIVERED, OrderDelivered { order: order() }.encode_to_vec()),
        (events::ORDER_SHIPPED, shipped("DHL", false).encode_to_vec()),
        (events::ORDER_SHIPPED, shipped("DHL", true).encode_to_vec()),
        (events::ORDER_SHIPPED, shipped("", false).encode_to_vec()),
        (
            events::ORDER_REFUNDED,
            OrderRefunded { order: order(), amount: 1250, ..OrderRefunded::default() }.encode_to_vec(),
        ),
    ];
    for reason in ["payment_declined", "payment_timeout", "out_of_stock", "customer", "staff"] {
        for returns in [None, Some(0), Some(2505)] {
            let cancelled =
                OrderCancelled { order: order(), reason: reason.to_owned(), returns, ..Default::default() };
            mails.push((events::ORDER_CANCELLED, cancelled.encode_to_vec()));
        }
    }
    for (kind, payload) in mails {
        let [english, chinese] = [Language::En, Language::Zh]
            .map(|language| super::write(kind, &payload, "Ada", language).unwrap());
        assert!(chinese.text.starts_with("Ada，您好：\n") && english.text.starts_with("Hello Ada,\n"));
        assert!(chinese.html.contains("<html lang=\"zh-CN\">"));
        // What has arrived may be less than was ordered.
        let lists = kind != events::ORDER_DELIVERED;
        assert_eq!(chinese.text.contains("合计: 25.05 EUR"), lists, "{}", chinese.text);
        assert_eq!(english.text.contains("2 x Mug"), lists, "{}", english.text);
        assert!(chinese.subject.chars().all(|letter| letter > '\u{2e7f}'), "{}", chinese.subject);
        let count = |mail: &Mail| mail.text.split("\n\n").nth(1).unwrap().lines().count();
        assert_eq!(count(&chinese), count(&english), "{}", chinese.text);
    }
    let declined = OrderCancelled {
        order: order(),
        reason: "payment_declined".to_owned(),
        returns: Some(0),
        ..Default::default()
    };
    let declined =
        super::write(events::ORDER_CANCELLED, &declined.encode_to_vec(), "Ada", Language::Zh).unwrap();
    assert!(declined.text.contains("我们没有向您收取任何款项。"), "{}", declined.text);
}

#[test]
fn mails_say_what_was_bought_in_text_and_in_escaped_html() {
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
fn a_mail_about_the_password_has_a_link_or_a_token_and_no_order() {
    let reset = |link: Option<&str>| {
        let link = link.map(str::to_owned);
        let payload = serde_json::to_vec(&Ticket { token: "to_ken-7".to_owned(), link }).unwrap();
        [Language::En, Language::Zh]
            .map(|language| super::write(PASSWORD_RESET, &payload, "Ada", language).unwrap())
    };
    let address = "https://shop.test/new?lang=en&token=to_ken-7";
    for mail in reset(Some(address)) {
        assert!(mail.text.contains(&format!("\n\n{address}\n\n-- \nDockside")), "{}", mail.text);
        let escaped = address.replace('&', "&#38;");
        assert!(mail.html.contains(&format!("<a href=\"{escaped}\">{escaped}</a>")), "{}", mail.html);
        assert!(!mail.text.contains("/api/v1/"), "{}", mail.text);
    }
    let [english, chinese] = reset(None);
    assert_eq!(english.subject, "Choose a new password");
    assert_eq!(chinese.subject, "设置新密码");
    for mail in [english, chinese] {
        assert!(mail.text.contains("/api/v1/password-resets/confirm"), "{}", mail.text);
        assert!(mail.text.contains("to_ken-7\n"), "{}", mail.text);
        assert!(!mail.html.contains("<a ") && !mail.html.contains("<table"), "{}", mail.html);
    }
    for (language, subject, order) in
        [(Language::En, "Your password was changed", "Order"), (Language::Zh, "您的密码已更改", "订单")]
    {
        let mail = super::write(PASSWORD_CHANGED, b"", "Ada", language).unwrap();
        assert_eq!(mail.subject, subject);
        assert!(!mail.text.contains(order) && !mail.html.contains(order), "{}", mail.text);
    }
    // As a row is left once its mail has gone.
    assert!(write(PASSWORD_RESET, b"", "Ada").is_err());
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

#[test]
fn a_mail_names_nobody_who_is_not_known_and_has_its_token_or_its_link() {
    let link = "https://shop.test/confirm?token=to_ken-7";
    for kind in ["account.confirm_address", "account.confirm_change"] {
        for (link, language, hello) in [
            (Some(link), Language::En, "Hello,\n"),
            (Some(link), Language::Zh, "您好：\n"),
            (None, Language::En, "Hello,\n"),
            (None, Language::Zh, "您好：\n"),
        ] {
            let ticket = Ticket { token: "to_ken-7".to_owned(), link: link.map(str::to_owned) };
            let payload = serde_json::to_vec(&ticket).unwrap();
            let mail = super::write(kind, &payload, "", language).unwrap();
            assert!(mail.text.starts_with(hello), "{}", mail.text);
            assert_eq!(mail.text.contains("POST /api/v1/email-verifications/confirm"), link.is_none());
            let shown = link.unwrap_or("to_ken-7");
            assert!(mail.text.contains(shown) && mail.html.contains(shown), "{}", mail.text);
        }
    }
    for kind in ["account.address_known", "account.address_changed"] {
        for language in [Language::En, Language::Zh] {
            let mail = super::write(kind, b"", "Ada", language).unwrap();
            assert!(mail.text.contains("Ada") && !mail.text.contains("http"), "{}", mail.text);
        }
    }
}
