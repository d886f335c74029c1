//! The demo catalogue, so that a new shop has products.

mod store;

use messaging::NewEvent;
use serde::Deserialize;
use service::db::Pool;
use uuid::Uuid;

use crate::category;
use crate::product::{self, Form};
use crate::stock;

const CATALOGUE: &str = include_str!("../demo/catalogue.json");

#[derive(Deserialize)]
struct Catalogue {
    categories: Vec<Category>,
    products: Vec<Item>,
}

#[derive(Deserialize)]
struct Category {
    slug: String,
    name: String,
    children: Vec<Category>,
}

#[derive(Deserialize)]
struct Item {
    stock: i32,
    #[serde(flatten)]
    form: Form,
}

/// Loads the catalogue unless this database had it before: what was changed or archived since stays so. If
/// several replicas start at once, one loads it and the others wait.
pub async fn load(pool: &Pool) -> anyhow::Result<()> {
    let mut transaction = service::db::begin(pool).await?;
    product::store::take_turn_to_add_many(&mut transaction).await?;
    if !store::mark_loaded(&mut transaction).await? {
        return Ok(());
    }
    let catalogue: Catalogue = serde_json::from_str(CATALOGUE)?;

    let (mut slugs, mut names, mut parents) = (Vec::new(), Vec::new(), Vec::new());
    let mut open: Vec<(&Category, Option<&str>)> = catalogue.categories.iter().map(|c| (c, None)).collect();
    while !open.is_empty() {
        let level = std::mem::take(&mut open);
        for (category, parent) in level {
            slugs.push(category.slug.clone());
            names.push(category.name.clone());
            parents.push(parent.map(str::to_owned));
            open.extend(category.children.iter().map(|child| (child, Some(category.slug.as_str()))));
        }
    }
    category::store::insert_many(&mut transaction, &slugs, &names, &parents).await?;

    let items = catalogue.products;
    let ids: Vec<Uuid> = items.iter().map(|_| Uuid::now_v7()).collect();
    let inserted = store::insert_products(&mut transaction, &ids, &items).await?;
    let units = ids.iter().zip(&items).filter(|(id, _)| inserted.contains(id));
    let units: Vec<(Uuid, i32)> = units.map(|(id, item)| (*id, item.stock)).collect();
    stock::open(&mut transaction, &units).await?;

    let products = product::store::by_ids(&mut transaction, &inserted).await?;
    let events: Vec<NewEvent> = products.iter().map(product::updated).collect();
    messaging::outbox::enqueue(&mut transaction, &events).await?;
    transaction.commit().await?;
    tracing::info!(products = events.len(), "demo.loaded");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_holds_valid_products_in_categories_of_its_own() {
        fn slugs(categories: &[Category]) -> Vec<&str> {
            let each = categories.iter();
            each.flat_map(|c| std::iter::once(c.slug.as_str()).chain(slugs(&c.children))).collect()
        }
        let catalogue: Catalogue = serde_json::from_str(CATALOGUE).unwrap();
        let known = slugs(&catalogue.categories);
        for item in &catalogue.products {
            assert!(known.contains(&item.form.category.as_str()), "{}", item.form.sku);
            let mut body = serde_json::to_value(&item.form).unwrap();
            body["stock"] = item.stock.into();
            product::NewProduct::parse(body).unwrap();
        }
        assert!(catalogue.products.len() >= 60 && catalogue.categories.len() >= 8);
    }
}
