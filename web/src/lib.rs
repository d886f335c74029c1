//! The shop's pages: a back end for browsers, and a client of the public HTTP API.
//!
//! Reading order: [`app`] has the routes and layers. A request becomes a [`visitor::Visitor`], who has a language, a
//! session and a cart ([`session`]), and whose calls go out by [`api`]. A handler fills a template, whose frame is a
//! [`page::Frame`]; a form comes in as a [`form::Form`]. [`shop`] has the pages, and [`admin`] those of the
//! back office.

mod admin;
pub mod api;
mod app;
mod assets;
mod config;
mod cookie_cart;
mod form;
mod guard;
mod locale;
mod page;
mod session;
mod shop;
mod visitor;

pub use app::start;
pub use config::Config;
