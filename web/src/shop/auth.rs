//! Sign-up, sign-in, sign-out, the forgotten password, and addresses that are verified.

use askama::Template;
use axum::Router;
use axum::http::Method;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::{cart, checkout};
use crate::api::Refused;
use crate::api::types::{Account, Tokens};
use crate::app::App;
use crate::form::{Fill, Form};
use crate::page::{Frame, Shown, own_path, personal, unprocessable, went};
use crate::session::Session;
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/checkout/sign-in", post(sign_in_at_checkout))
        .route("/sign-up", get(sign_up_page).post(sign_up))
        .route("/sign-out", post(sign_out))
        .route("/forgot-password", get(forgot_page).post(forgot))
        .route("/reset-password", get(reset_page).post(reset))
        .route("/confirm-email", get(confirm_page).post(confirm))
        .route("/confirm-email/again", post(confirm_again))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
pub struct SignIn {
    p: Frame,
    fill: Fill,
    next: String,
    /// What was typed at the checkout, to go on with; each name with its value.
    kept: Vec<(String, String)>,
    at_checkout: bool,
}

#[derive(Template)]
#[template(path = "sign_up.html")]
struct SignUp {
    p: Frame,
    fill: Fill,
    next: String,
}

fn next(visitor: &Visitor) -> String {
    own_path(&visitor.query_has("next").unwrap_or_default()).to_owned()
}

fn sign_in_view(visitor: &Visitor, fill: Fill, next: String) -> SignIn {
    let p = visitor.frame(&visitor.lang().text("sign-in-title", &[]));
    SignIn { p, fill, next, kept: Vec::new(), at_checkout: false }
}

async fn sign_in_page(visitor: Visitor) -> Shown {
    let next = next(&visitor);
    if visitor.is_signed_in() {
        return Ok(went(&next, ""));
    }
    Ok(personal(&sign_in_view(&visitor, Fill::default(), next)))
}

async fn sign_in(visitor: Visitor, form: Form) -> Shown {
    let next = own_path(form.get("next")).to_owned();
    match enter(&visitor, &form).await? {
        Ok(()) => Ok(went(&next, "signed-in")),
        Err(fill) => Ok(unprocessable(&sign_in_view(&visitor, fill, next))),
    }
}

/// The session has ended at the checkout: what was typed there goes on in this form, and so does its key.
pub fn at_checkout(visitor: &Visitor, form: &[(String, String)]) -> Response {
    let mut fill = Fill::default();
    fill.general = Some(visitor.lang().text("sign-in-again", &[]));
    let page =
        SignIn { kept: form.to_vec(), at_checkout: true, ..sign_in_view(visitor, fill, String::new()) };
    personal(&page)
}

const KEPT: &str = "kept.";

async fn sign_in_at_checkout(visitor: Visitor, form: Form) -> Shown {
    let kept = form
        .fields()
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(KEPT)?.to_owned(), value.clone())));
    let kept: Vec<_> = kept.collect();
    match enter(&visitor, &form).await? {
        Ok(()) => checkout::again(&visitor, kept).await,
        Err(fill) => {
            let page = SignIn { kept, at_checkout: true, ..sign_in_view(&visitor, fill, String::new()) };
            Ok(unprocessable(&page))
        }
    }
}

/// Signs in, and brings the cart along. What was wrong comes back in the form.
async fn enter(visitor: &Visitor, form: &Form) -> Result<Result<(), Fill>, Refused> {
    match enter_as(visitor, form.get("email").trim(), form.get("password")).await {
        Ok(()) => Ok(Ok(())),
        Err(refused) => {
            let mut fill = Fill::of(form);
            fill.refuse(visitor.lang(), refused, &["email", "password"])?;
            Ok(Err(fill))
        }
    }
}

async fn enter_as(visitor: &Visitor, email: &str, password: &str) -> Result<(), Refused> {
    let credentials = json!({"email": email, "password": password});
    let call = visitor.call(Method::POST, &["auth", "login"]).header(DEVICE, &visitor.devices());
    let mut tokens = call.json(&credentials).get::<Tokens>().await?;
    if let Some(device) = tokens.device_token.take() {
        visitor.remember(device);
    }
    visitor.sign_in(Session::new(tokens, email));
    let (account, cart) =
        tokio::join!(visitor.signed(Method::GET, &["me"]).get::<Account>(), cart::merge(visitor));
    if let Ok(account) = account {
        visitor.renamed(&account.name);
    }
    // What could not be brought along now is in the cookie yet, and comes when the cart is shown.
    if let Err(refused) = cart {
        tracing::info!(?refused, "cart.not_merged");
    }
    Ok(())
}

async fn sign_up_page(visitor: Visitor) -> Shown {
    let next = next(&visitor);
    if visitor.is_signed_in() {
        return Ok(went(&next, ""));
    }
    Ok(personal(&sign_up_view(&visitor, Fill::default(), next)))
}

fn sign_up_view(visitor: &Visitor, fill: Fill, next: String) -> SignUp {
    SignUp { p: visitor.frame(&visitor.lang().text("sign-up-title", &[])), fill, next }
}

async fn sign_up(visitor: Visitor, form: Form) -> Shown {
    let next = own_path(form.get("next")).to_owned();
    let account = json!({
        "email": form.get("email").trim(),
        "password": form.get("password"),
        "name": form.get("name").trim(),
        "language": visitor.lang().code(),
    });
    let made = visitor.call(Method::POST, &["auth", "register"]).json(&account).done().await;
    // There is no account before the address is verified.
    if made.as_ref().is_ok_and(|answer| is_mail_sent(answer)) {
        return Ok(went("/confirm-email?sent=1", ""));
    }
    // Sent twice: the account is there, and whoever knows its password is in.
    let taken = matches!(&made, Err(refused) if refused.code() == "email_taken");
    if made.is_ok() || taken {
        match enter(&visitor, &form).await? {
            Ok(()) => return Ok(went(&next, if taken { "signed-in" } else { "welcome" })),
            Err(fill) if made.is_ok() => return Ok(unprocessable(&sign_in_view(&visitor, fill, next))),
            Err(_) => {}
        }
    }
    let mut fill = Fill::of(&form);
    if let Err(refused) = made {
        if taken {
            fill.wrong("email", visitor.lang().text("problem-email-taken", &[]));
        } else {
            fill.refuse(visitor.lang(), refused, &["email", "password", "name"])?;
        }
    }
    Ok(unprocessable(&sign_up_view(&visitor, fill, next)))
}

/// What this browser is known by.
pub const DEVICE: &str = "x-device-token";

/// The answer that says that a token is on its way to an address, and nothing of the account.
pub fn is_mail_sent(answer: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Sent {
        #[serde(rename = "expires_in")]
        _seconds: i64,
    }
    serde_json::from_slice::<Sent>(answer).is_ok()
}

async fn sign_out(visitor: Visitor, _: Form) -> Shown {
    if let Some(session) = visitor.session() {
        let call = visitor.call(Method::POST, &["auth", "logout"]);
        // Signed out here in any case; elsewhere its session ends with its time.
        if call.json(&json!({"refresh_token": session.refresh})).done().await.is_err() {
            tracing::warn!("session.not_ended");
        }
    }
    visitor.sign_out();
    visitor.cart(|cart| cart.lines.clear());
    Ok(went("/", "signed-out"))
}

#[derive(Template)]
#[template(path = "forgot.html")]
struct Forgot {
    p: Frame,
    fill: Fill,
    sent: bool,
}

fn forgot_view(visitor: &Visitor, fill: Fill, sent: bool) -> Forgot {
    Forgot { p: visitor.frame(&visitor.lang().text("forgot-title", &[])), fill, sent }
}

async fn forgot_page(visitor: Visitor) -> Shown {
    let sent = visitor.query_has("sent").is_some();
    Ok(personal(&forgot_view(&visitor, Fill::default(), sent)))
}

async fn forgot(visitor: Visitor, form: Form) -> Shown {
    let body = json!({"email": form.get("email").trim()});
    match visitor.call(Method::POST, &["password-resets"]).json(&body).done().await {
        Ok(_) => Ok(went("/forgot-password?sent=1", "")),
        Err(refused) => {
            let mut fill = Fill::of(&form);
            fill.refuse(visitor.lang(), refused, &["email"])?;
            Ok(unprocessable(&forgot_view(&visitor, fill, false)))
        }
    }
}

#[derive(Template)]
#[template(path = "reset.html")]
struct Reset {
    p: Frame,
    fill: Fill,
}

async fn reset_page(visitor: Visitor) -> Shown {
    let token = visitor.query_has("token").unwrap_or_default();
    let p = visitor.frame(&visitor.lang().text("reset-title", &[]));
    Ok(personal(&Reset { p, fill: Fill::default().with("token", token) }))
}

async fn reset(visitor: Visitor, form: Form) -> Shown {
    let body = json!({"token": form.get("token").trim(), "password": form.get("password")});
    let done = visitor.call(Method::POST, &["password-resets", "confirm"]).json(&body).done().await;
    match done {
        Ok(_) => {
            visitor.sign_out();
            Ok(went("/sign-in", "password-set"))
        }
        Err(refused) => {
            let mut fill = Fill::of(&form);
            fill.refuse(visitor.lang(), refused, &["password", "token"])?;
            let p = visitor.frame(&visitor.lang().text("reset-title", &[]));
            Ok(unprocessable(&Reset { p, fill }))
        }
    }
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    p: Frame,
    /// Of the token and the password.
    fill: Fill,
    /// Of the address that the mail goes to once more.
    again: Fill,
    sent: bool,
}

fn confirm_view(visitor: &Visitor, fill: Fill, again: Fill, sent: bool) -> Confirm {
    let p = visitor.frame(&visitor.lang().text("confirm-title", &[]));
    Confirm { p, fill, again: again.within("again-"), sent }
}

async fn confirm_page(visitor: Visitor) -> Shown {
    let token = Fill::default().with("token", visitor.query_has("token").unwrap_or_default());
    let sent = visitor.query_has("sent").is_some();
    Ok(personal(&confirm_view(&visitor, token, Fill::default(), sent)))
}

/// The password goes with the token, and opens the session at once.
async fn confirm(visitor: Visitor, form: Form) -> Shown {
    let password = form.get("password");
    let body = json!({"token": form.get("token").trim(), "password": password});
    let done = visitor.call(Method::POST, &["email-verifications", "confirm"]).json(&body);
    match done.get::<Account>().await {
        Ok(account) => {
            // A change of the address has ended the session.
            visitor.sign_out();
            match enter_as(&visitor, &account.email, password).await {
                Ok(()) => Ok(went("/", "address-confirmed")),
                Err(_) => Ok(went("/sign-in", "address-confirmed")),
            }
        }
        Err(refused) => {
            let mut fill = Fill::of(&form);
            if refused.code() == "wrong_password" {
                fill.wrong("password", visitor.lang().text("problem-wrong-password-of-token", &[]));
            } else {
                fill.refuse(visitor.lang(), refused, &["password", "token"])?;
            }
            Ok(unprocessable(&confirm_view(&visitor, fill, Fill::default(), false)))
        }
    }
}

async fn confirm_again(visitor: Visitor, form: Form) -> Shown {
    let body = json!({"email": form.get("email").trim()});
    match visitor.call(Method::POST, &["email-verifications"]).json(&body).done().await {
        Ok(_) => Ok(went("/confirm-email?sent=1", "")),
        Err(refused) => {
            let mut again = Fill::of(&form);
            again.refuse(visitor.lang(), refused, &["email"])?;
            Ok(unprocessable(&confirm_view(&visitor, Fill::default(), again, false)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_mail_sent;

    #[test]
    fn an_account_is_not_taken_for_a_mail_that_was_sent() {
        assert!(is_mail_sent(br#"{"expires_in": 86400}"#));
        for account in [&br#"{"id": "x", "email": "a@b", "name": "Ada"}"#[..], b"", b"{}"] {
            assert!(!is_mail_sent(account));
        }
    }
}
