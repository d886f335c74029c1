//! `/admin/categories`: the tree, and one of it to rename, to move, to merge into another and to delete. As a list to
//! choose from, too.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{key, new_key, refuse};
use crate::api::Refused;
use crate::api::types::{Categories, Category, CategoryPlace};
use crate::app::App;
use crate::form::{Fill, Form, sentence};
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin/categories", get(list).post(create))
        .route("/admin/categories/{slug}", get(page).post(save))
        .route("/admin/categories/{slug}/delete", post(delete))
}

/// A slug, and the name below the names above it.
pub struct Choice {
    pub slug: String,
    pub name: String,
    /// Products in the shop, in it and below it.
    pub count: i64,
}

pub async fn choices(visitor: &Visitor) -> Result<Vec<Choice>, Refused> {
    choices_without(visitor, "").await
}

/// All but the category `without` and those below it.
async fn choices_without(visitor: &Visitor, without: &str) -> Result<Vec<Choice>, Refused> {
    let tree = visitor.call(Method::GET, &["categories"]).get::<Categories>().await?;
    let mut all = Vec::new();
    below("", &tree.items, without, &mut all);
    Ok(all)
}

fn below(above: &str, categories: &[Category], without: &str, all: &mut Vec<Choice>) {
    for category in categories.iter().filter(|category| category.slug != without) {
        let name =
            if above.is_empty() { category.name.clone() } else { format!("{above} / {}", category.name) };
        all.push(Choice { slug: category.slug.clone(), name: name.clone(), count: category.count });
        below(&name, &category.children, without, all);
    }
}

const FIELDS: [&str; 3] = ["name", "slug", "parent"];

#[derive(Template)]
#[template(path = "admin/categories.html")]
struct List {
    p: Frame,
    categories: Vec<Choice>,
    fill: Fill,
}

async fn view(visitor: &Visitor, fill: Fill) -> Result<List, Refused> {
    let p = visitor.frame(&visitor.lang().text("admin-categories", &[]));
    Ok(List { p, categories: choices(visitor).await?, fill })
}

async fn list(visitor: Visitor) -> Shown {
    Ok(personal(&view(&visitor, Fill::default().with("key", new_key().to_string())).await?))
}

async fn create(visitor: Visitor, form: Form) -> Shown {
    let mut body = json!({"name": form.get("name").trim(), "parent": form.filled("parent")});
    if let Some(slug) = form.filled("slug") {
        body["slug"] = json!(slug);
    }
    let call = visitor.signed(Method::POST, &["categories"]).json(&body).key(&key(&form));
    match call.done().await {
        Ok(_) => Ok(went("/admin/categories", "category-created")),
        Err(refused) => {
            let mut fill = Fill::of(&form);
            refuse(&mut fill, visitor.lang(), refused, &FIELDS)?;
            Ok(unprocessable(&view(&visitor, fill).await?))
        }
    }
}

#[derive(Template)]
#[template(path = "admin/category.html")]
struct Edit {
    p: Frame,
    slug: String,
    /// Where it may go: all but itself and those below it.
    others: Vec<Choice>,
    fill: Fill,
    problem: Option<String>,
}

async fn edit(visitor: &Visitor, slug: &str) -> Result<Edit, Refused> {
    let place = visitor.call(Method::GET, &["categories", slug]);
    let (place, others) = tokio::join!(place.get::<CategoryPlace>(), choices_without(visitor, slug));
    let (place, others) = (place?, others?);
    Ok(Edit {
        p: visitor.frame(&place.name),
        slug: slug.to_owned(),
        others,
        fill: FIELDS
            .into_iter()
            .zip([&*place.name, slug, place.parent.as_deref().unwrap_or_default()])
            .fold(Fill::default(), |fill, (name, value)| {
                fill.with(name, value).with(&format!("was-{name}"), value)
            }),
        problem: None,
    })
}

impl Edit {
    /// What the form began from.
    fn was(&self, name: &str) -> &str {
        self.fill.value(&format!("was-{name}"))
    }
}

/// Where somebody renamed it, the page is at the new name.
fn moved(refused: Refused) -> Shown {
    match refused {
        Refused::Moved(to) => {
            Ok(went(&format!("/admin/categories/{}", to.rsplit('/').next().unwrap_or_default()), ""))
        }
        other => Err(other.into()),
    }
}

async fn page(visitor: Visitor, Path(slug): Path<String>) -> Shown {
    match edit(&visitor, &slug).await {
        Ok(page) => Ok(personal(&page)),
        Err(refused) => moved(refused),
    }
}

/// What was changed in the form, and nothing else.
fn changes(form: &Form) -> Value {
    let mut body = json!({});
    for name in FIELDS {
        let typed = form.get(name).trim();
        if typed != form.get(&format!("was-{name}")) {
            body[name] = if name == "parent" && typed.is_empty() { Value::Null } else { json!(typed) };
        }
    }
    body
}

async fn save(visitor: Visitor, Path(slug): Path<String>, form: Form) -> Shown {
    let call = visitor.signed(Method::PATCH, &["categories", &slug]);
    match call.json(&changes(&form)).done().await {
        Ok(_) => Ok(went("/admin/categories", "category-saved")),
        Err(refused) => {
            let mut page = match edit(&visitor, &slug).await {
                Ok(page) => page,
                Err(refused) => return moved(refused),
            };
            page.fill = Fill::of(&form);
            page.fill.refuse(visitor.lang(), refused, &FIELDS)?;
            Ok(unprocessable(&page))
        }
    }
}

/// With a category to merge it into, its products and sub-categories go there; without, it has to be empty.
async fn delete(visitor: Visitor, Path(slug): Path<String>, form: Form) -> Shown {
    let call = visitor.signed(Method::DELETE, &["categories", &slug]);
    let into = form.filled("move_to");
    let into: Vec<_> = into.iter().map(|into| ("move_to", into.as_str())).collect();
    let why = match call.query(&into).done().await {
        Ok(_) => return Ok(went("/admin/categories", "category-deleted")),
        Err(Refused::Problem(problem)) if problem.status != 404 => {
            sentence(visitor.lang(), &super::plainly(problem))
        }
        Err(Refused::Away) => visitor.lang().text("error-outcome-unknown", &[]),
        Err(other) => return Err(other.into()),
    };
    let mut page = match edit(&visitor, &slug).await {
        Ok(page) => page,
        Err(refused) => return moved(refused),
    };
    page.problem = Some(why);
    Ok(unprocessable(&page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_category_names_what_was_changed() {
        let changed = |form: &str| changes(&Form::parse(form.as_bytes()));
        let was = "was-name=Coats&was-slug=coats&was-parent=clothing";
        assert_eq!(changed(&format!("{was}&name=Coats+&slug=coats&parent=clothing")), json!({}));
        assert_eq!(
            changed(&format!("{was}&name=Jackets&slug=jackets&parent=")),
            json!({"name": "Jackets", "slug": "jackets", "parent": null})
        );
    }

    #[test]
    fn a_choice_is_named_with_those_above_it() {
        let leaf = |slug: &str, children| Category {
            slug: slug.to_owned(),
            name: slug.to_uppercase(),
            count: 1,
            children,
        };
        let tree = [leaf("a", vec![leaf("b", vec![])]), leaf("c", vec![])];
        let names = |without: &str| {
            let mut all = Vec::new();
            below("", &tree, without, &mut all);
            all.into_iter().map(|choice| choice.name).collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["A", "A / B", "C"]);
        // A category goes neither into itself nor into what is below it.
        assert_eq!(names("a"), ["C"]);
        assert_eq!(names("b"), ["A", "C"]);
    }
}
