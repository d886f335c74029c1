//! The demo catalogue, for a shop to look at.

use messaging::NewEvent;
use serde::Deserialize;
use service::db::Pool;
use sqlx::types::Json;
use uuid::Uuid;

use crate::product::{self, Form, store};
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

/// Loads the catalogue unless this database had it before: what was changed or
/// archived since stays so. Of several replicas that start at once, one loads
/// and the others wait for it.
pub async fn load(pool: &Pool) -> anyhow::Result<()> {
    let mut transaction = service::db::begin(pool).await?;
    store::take_turn_to_add_many(&mut transaction).await?;
    let marked = sqlx::query!("INSERT INTO products.loaded (name) VALUES ('demo') ON CONFLICT DO NOTHING");
    if marked.execute(&mut *transaction).await?.rows_affected() == 0 {
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
    sqlx::query!(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
         ON CONFLICT DO NOTHING",
        &slugs,
        &names,
        &parents as &[Option<String>],
    )
    .execute(&mut *transaction)
    .await?;

    let items = catalogue.products;
    let ids: Vec<Uuid> = items.iter().map(|_| Uuid::now_v7()).collect();
    let column = |value: fn(&Form) -> &str| -> Vec<String> {
        items.iter().map(|item| value(&item.form).to_owned()).collect()
    };
    let slugs: Vec<String> = items.iter().map(|item| product::slug(&item.form.name)).collect();
    let prices: Vec<i64> = items.iter().map(|item| item.form.price.amount).collect();
    let attributes: Vec<Json<_>> = items.iter().map(|item| Json(&item.form.attributes)).collect();
    let searches: Vec<String> = items.iter().map(|item| product::indexing::vector(&item.form)).collect();
    // A shop that has the SKU or the slug already keeps its own product.
    let inserted = sqlx::query_scalar!(
        "INSERT INTO products.products
             (id, sku, slug, name, description, price, currency, category, attributes, images,
              search, words_version)
         SELECT id, sku, slug, name, description, price, currency, category, attributes, '{}',
                search::tsvector, $11
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                     $8::text[], $9::jsonb[], $10::text[])
              AS n (id, sku, slug, name, description, price, currency, category, attributes, search)
         ON CONFLICT DO NOTHING RETURNING id",
        &ids,
        &column(|form| &form.sku),
        &slugs,
        &column(|form| &form.name),
        &column(|form| &form.description),
        &prices,
        &column(|form| form.price.currency.code()),
        &column(|form| &form.category),
        &attributes as _,
        &searches,
        words::VERSION,
    );
    let inserted = inserted.fetch_all(&mut *transaction).await?;
    let units = ids.iter().zip(&items).filter(|(id, _)| inserted.contains(id));
    let units: Vec<(Uuid, i32)> = units.map(|(id, item)| (*id, item.stock)).collect();
    stock::open(&mut transaction, &units).await?;

    let products = store::by_ids(&mut transaction, &inserted).await?;
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
