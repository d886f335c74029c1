//! Categories as a list to choose from.

use axum::http::Method;

use crate::api::Refused;
use crate::api::types::{Categories, Category};
use crate::visitor::Visitor;

/// A slug, and the name below the names above it.
pub struct Choice {
    pub slug: String,
    pub name: String,
}

pub async fn choices(visitor: &Visitor) -> Result<Vec<Choice>, Refused> {
    let tree = visitor.call(Method::GET, &["categories"]).get::<Categories>().await?;
    let mut all = Vec::new();
    below("", &tree.items, &mut all);
    Ok(all)
}

fn below(above: &str, categories: &[Category], all: &mut Vec<Choice>) {
    for category in categories {
        let name =
            if above.is_empty() { category.name.clone() } else { format!("{above} / {}", category.name) };
        all.push(Choice { slug: category.slug.clone(), name: name.clone() });
        below(&name, &category.children, all);
    }
}
