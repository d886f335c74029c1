//! `/admin/imports`: many products at once, in and out.

use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use uuid::Uuid;

use super::types::{ImportError, ImportProgress, ImportReport};
use super::upload::Upload;
use super::{key, new_key, plainly};
use crate::api::Refused;
use crate::app::App;
use crate::form::{Fill, sentence};
use crate::page::{Failed, Frame, Shown, personal, unprocessable};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin/imports", get(page).post(import))
        .route("/admin/imports/{id}", get(progress))
        .route("/admin/exports", get(export))
}

/// As long as the edge waits for an import.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

const FORMATS: [(&str, &str); 6] = [
    ("csv", "text/csv"),
    ("tsv", "text/tab-separated-values"),
    ("ndjson", "application/x-ndjson"),
    ("rss", "application/rss+xml"),
    ("atom", "application/atom+xml"),
    ("xml", "application/xml"),
];
const PROFILES: [&str; 5] = ["shopify", "woocommerce", "magento", "prestashop", "google"];
/// Choices that the API takes as they are; an empty one is left to it.
const CHOICES: [&str; 4] = ["profile", "currency", "decimal", "price_unit"];

fn names_a_choice(pointer: &str) -> bool {
    CHOICES.contains(&pointer.trim_start_matches('/'))
}

/// By the choice, else by the end of the file's name.
fn media_type(choice: &str, file: &str) -> Option<&'static str> {
    let end = file.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let end = match end.as_str() {
        "txt" => "tsv",
        "jsonl" | "json" => "ndjson",
        other => other,
    };
    let format = if choice.is_empty() { end } else { choice };
    FORMATS.iter().find(|(name, _)| *name == format).map(|(_, media_type)| *media_type)
}

#[derive(Template)]
#[template(path = "admin/imports.html")]
struct Imports {
    p: Frame,
    fill: Fill,
    id: Uuid,
    report: Option<ImportReport>,
    /// The outcome of the import before is not known.
    unknown: Option<Uuid>,
}

impl Imports {
    /// Without the field, which has its own column.
    fn why<'a>(&self, error: &'a ImportError) -> &'a str {
        let rest = error.detail.split_once(": ").filter(|(field, _)| field.starts_with('/'));
        rest.map_or(error.detail.as_str(), |(_, why)| why)
    }

    fn formats(&self) -> [&'static str; 6] {
        FORMATS.map(|(name, _)| name)
    }

    fn profiles(&self) -> [&'static str; 5] {
        PROFILES
    }

    /// The lines to mend, as an address that holds them: they are kept nowhere.
    fn rejected(&self) -> Option<String> {
        let lines = self.report.as_ref()?.rejected.as_ref().filter(|lines| !lines.is_empty())?;
        Some(format!("data:application/octet-stream;base64,{}", BASE64_STANDARD.encode(lines)))
    }
}

fn view(visitor: &Visitor, fill: Fill) -> Imports {
    let p = visitor.frame(&visitor.lang().text("admin-imports", &[]));
    Imports { p, fill, id: new_key(), report: None, unknown: None }
}

async fn page(visitor: Visitor) -> Shown {
    Ok(personal(&view(&visitor, Fill::default().with("dry_run", "yes"))))
}

async fn import(visitor: Visitor, mut upload: Upload) -> Shown {
    let lang = visitor.lang();
    let mut fill = Fill::of(&upload.form);
    let Some(file) = upload.file().await? else {
        fill.wrong("file", lang.text("problem-no-file", &[]));
        return Ok(unprocessable(&view(&visitor, fill)));
    };
    let form = &upload.form;
    let Some(media_type) = media_type(form.get("format"), file.file_name().unwrap_or_default()) else {
        fill.wrong("format", lang.text("problem-no-format", &[]));
        return Ok(unprocessable(&view(&visitor, fill)));
    };
    let id = key(form);
    let mut query = vec![("id", id.as_str()), ("rejected", "true")];
    query.extend(
        CHOICES.into_iter().map(|name| (name, form.get(name))).filter(|(_, value)| !value.is_empty()),
    );
    if form.get("dry_run") == "yes" {
        query.push(("dry_run", "true"));
    }
    let call = visitor.signed(Method::POST, &["product-imports"]).query(&query).key(&id);
    let answer = call.stream_of(media_type, file, DEADLINE).get::<ImportReport>().await;
    let mut page = view(&visitor, fill);
    match answer {
        Ok(report) => {
            page.report = Some(report);
            return Ok(personal(&page));
        }
        Err(Refused::Away) => page.unknown = id.parse().ok(),
        Err(Refused::Problem(problem)) if problem.status == 409 => {
            page.fill.general = Some(sentence(lang, &problem));
            page.unknown = id.parse().ok();
        }
        Err(Refused::Problem(problem))
            if problem.errors.iter().all(|error| !names_a_choice(&error.pointer)) =>
        {
            page.fill.general = Some(plainly(problem).detail);
        }
        Err(refused) => page.fill.refuse(lang, refused, &CHOICES)?,
    }
    Ok(unprocessable(&page))
}

#[derive(Template)]
#[template(path = "admin/import.html")]
struct Progress {
    p: Frame,
    id: Uuid,
    progress: ImportProgress,
}

async fn progress(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    let progress = visitor.signed(Method::GET, &["product-imports", &id.to_string()]).get().await?;
    let p = visitor.frame(&visitor.lang().text("admin-import-progress", &[]));
    Ok(personal(&Progress { p, id, progress }))
}

/// The file as the API makes it, part by part.
async fn export(visitor: Visitor) -> Result<Response, Failed> {
    let asked = visitor.query_has("format").unwrap_or_default();
    let (format, end) = [("csv", "csv"), ("ndjson", "ndjson"), ("google", "xml")]
        .into_iter()
        .find(|(name, _)| *name == asked)
        .ok_or(Failed::NotFound)?;
    let link = format!("{}/products/", visitor.app().origin);
    let mut query = vec![("format", format)];
    if format == "google" {
        query.push(("link", &link));
    }
    let answer = visitor.stream(&["product-exports"]).query(&query).answer().await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => return Err(Failed::NotFound),
        _ => return Err(Refused::Away.into()),
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or_else(|| header::HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"products.{end}\"");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, name.parse().map_err(|_| Refused::Away)?),
    ];
    Ok((headers, Body::from_stream(answer.bytes_stream())).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_format_is_chosen_or_known_by_its_name() {
        assert_eq!(media_type("", "Products.CSV"), Some("text/csv"));
        assert_eq!(media_type("", "products.jsonl"), Some("application/x-ndjson"));
        assert_eq!(media_type("csv", "products.xls"), Some("text/csv"));
        for odd in ["", "products", "products.xls", "csv.exe"] {
            assert_eq!(media_type("", odd), None, "{odd}");
        }
    }
}
