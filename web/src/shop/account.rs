//! `/account`: profile, e-mail address, password, and where somebody is signed in.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth;
use crate::api::types::{Account, Page, SignIn, Tokens};
use crate::api::{Call, Refused};
use crate::app::App;
use crate::form::{Fill, Form};
use crate::page::{Failed, Frame, Shown, personal, unprocessable, went};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new()
        .route("/account", get(page).post(profile))
        .route("/account/email", post(email))
        .route("/account/password", post(password))
        .route("/account/delete", post(delete))
        .route("/account/sessions/{id}/end", post(end))
        .route("/account/sessions/end", post(end_all))
}

/// What is wrong belongs to one of the page's forms.
#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    p: Frame,
    account: Account,
    sessions: Option<Vec<SignIn>>,
    profile: Fill,
    email: Fill,
    password: Fill,
    delete: Fill,
}

async fn view(visitor: &Visitor) -> Result<AccountPage, Refused> {
    let account = visitor.signed(Method::GET, &["me"]);
    let sessions = visitor.signed(Method::GET, &["me", "sessions"]).query(&[("limit", "50")]);
    let (account, sessions) = tokio::join!(account.get::<Account>(), sessions.get::<Page<SignIn>>());
    let account = account?;
    visitor.renamed(&account.name);
    Ok(AccountPage {
        sessions: shown(sessions)?.map(|page| page.items),
        profile: Fill::default().with("name", &*account.name).with("language", &*account.language),
        email: Fill::default().within("email-").with("email", &*account.email),
        password: Fill::default(),
        delete: Fill::default().within("delete-"),
        p: visitor.frame(&visitor.lang().text("account-title", &[])),
        account,
    })
}

async fn page(visitor: Visitor) -> Shown {
    Ok(personal(&view(&visitor).await?))
}

/// Sends what a form of the page holds; with what was wrong about it the page comes back.
async fn send(
    visitor: &Visitor,
    (call, body): (Call<'_>, Value),
    form: &Form,
    said: &str,
    place: impl FnOnce(&mut AccountPage) -> &mut Fill,
    fields: &[&str],
) -> Shown {
    let refused = match call.json(&body).done().await {
        // A new address counts when it is verified.
        Ok(answer) if auth::is_mail_sent(&answer) => return Ok(went("/account", "address-mail-sent")),
        Ok(_) => return Ok(went("/account", said)),
        Err(refused) => refused,
    };
    let mut page = view(visitor).await?;
    let there = place(&mut page);
    *there = Fill::of(form).within(there.prefix());
    there.refuse(visitor.lang(), refused, fields)?;
    Ok(unprocessable(&page))
}

async fn profile(visitor: Visitor, form: Form) -> Shown {
    let body = json!({"name": form.get("name").trim(), "language": form.get("language")});
    let call = visitor.signed(Method::PATCH, &["me"]);
    send(&visitor, (call, body), &form, "saved", |page| &mut page.profile, &["name", "language"]).await
}

async fn email(visitor: Visitor, form: Form) -> Shown {
    let body = json!({"email": form.get("email").trim(), "current_password": form.get("current_password")});
    let call = visitor.signed(Method::POST, &["me", "email"]);
    send(&visitor, (call, body), &form, "saved", |page| &mut page.email, &["email", "current_password"]).await
}

async fn password(visitor: Visitor, form: Form) -> Shown {
    let (current, new) = (form.get("current_password"), form.get("new_password"));
    let body = json!({"current_password": current, "new_password": new});
    let call = visitor.signed(Method::POST, &["me", "password"]).header(auth::DEVICE, &visitor.devices());
    let fields = ["current_password", "new_password"];
    send(&visitor, (call, body), &form, "password-changed", |page| &mut page.password, &fields).await
}

/// The API takes the session for consent. Here the password is asked for, too: somebody else may be at the device.
async fn delete(visitor: Visitor, form: Form) -> Shown {
    let mut page = view(&visitor).await?;
    let credentials = json!({"email": page.account.email, "password": form.get("current_password")});
    let call = visitor.call(Method::POST, &["auth", "login"]).header(auth::DEVICE, &visitor.devices());
    let known = call.json(&credentials).get::<Tokens>().await;
    let refused = match known {
        Ok(tokens) => match delete_account(&visitor).await {
            Ok(()) => {
                visitor.sign_out();
                visitor.cart(|cart| cart.lines.clear());
                return Ok(went("/", "account-deleted"));
            }
            Err(refused) => {
                // The sign-in was for the password alone.
                let end = json!({"refresh_token": tokens.refresh_token});
                if visitor.call(Method::POST, &["auth", "logout"]).json(&end).done().await.is_err() {
                    tracing::warn!("session.not_ended");
                }
                refused
            }
        },
        Err(refused) => refused,
    };
    if refused.code() == "invalid_credentials" {
        page.delete.wrong("current_password", visitor.lang().text("problem-wrong-password", &[]));
    } else {
        page.delete.refuse(visitor.lang(), refused, &["current_password"])?;
    }
    Ok(unprocessable(&page))
}

/// Where no answer comes, the account is asked for: it may be gone.
async fn delete_account(visitor: &Visitor) -> Result<(), Refused> {
    match visitor.signed(Method::DELETE, &["me"]).done().await {
        Ok(_) => Ok(()),
        Err(Refused::Away) => match visitor.signed(Method::GET, &["me"]).done().await {
            Err(refused) if refused.is_not_found() || matches!(refused, Refused::SignedOut) => Ok(()),
            _ => Err(Refused::Away),
        },
        Err(refused) => Err(refused),
    }
}

async fn end(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    match visitor.signed(Method::DELETE, &["me", "sessions", &id.to_string()]).done().await {
        Err(refused) if !refused.is_not_found() => Err(Failed::from(refused)),
        _ => Ok(went("/account", "signed-out-elsewhere")),
    }
}

async fn end_all(visitor: Visitor, _: Form) -> Shown {
    visitor.signed(Method::DELETE, &["me", "sessions"]).done().await?;
    visitor.sign_out();
    Ok(went("/sign-in", "signed-out"))
}
