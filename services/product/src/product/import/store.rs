//! The SQL of imports: a few statements for a batch.

use std::collections::{BTreeMap, HashMap, HashSet};

use service::db::{self, Connection};
use service::idempotency::KEY_LIFE;
use service::money::Currency;
use sqlx::types::Json;
use uuid::Uuid;

use super::Units;
use crate::category::MOST_LEVELS;
use crate::product::{Form, indexing, sku};

/// A product that there is.
pub struct Found {
    pub id: Uuid,
    pub form: Form,
    pub on_hand: i32,
    pub reserved: i32,
}

/// What lines did to stock, by their places: the SKU's key, and the change.
pub type Changes = HashMap<u64, (String, Units)>;

/// The products with these keys of SKUs, by them, deleted ones aside, their rows locked. Their stock rows are not.
pub async fn lock(connection: &mut Connection, keys: &[String]) -> sqlx::Result<HashMap<String, Found>> {
    let rows = sqlx::query!(
        r#"SELECT p.id, COALESCE(p.sku_key, lower(p.sku COLLATE "C")) AS "key!", p.sku, p.name, p.description, p.price, p.currency, p.category,
                  p.attributes AS "attributes: Json<BTreeMap<String, String>>", p.images,
                  s.on_hand, s.reserved
           FROM products.products p JOIN products.stock s ON s.product_id = p.id
           WHERE COALESCE(p.sku_key, lower(p.sku COLLATE "C")) = ANY($1) AND (p.draft OR p.archived_at IS NULL)
           ORDER BY COALESCE(p.sku_key, lower(p.sku COLLATE "C")) FOR NO KEY UPDATE OF p"#,
        keys,
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let form = Form {
            sku: row.sku,
            name: row.name,
            description: row.description,
            price: db::money(row.price, &row.currency)?,
            category: row.category,
            attributes: row.attributes.0,
            images: row.images,
        };
        let (on_hand, reserved) = (row.on_hand, row.reserved);
        Ok((row.key, Found { id: row.id, form, on_hand, reserved }))
    });
    rows.collect()
}

/// The currency of the thousand newest products, if they share one.
pub async fn usual_currency(connection: &mut Connection) -> sqlx::Result<Option<Currency>> {
    let newest = sqlx::query_scalar!(
        "SELECT DISTINCT currency FROM (
             SELECT currency FROM products.products WHERE archived_at IS NULL
             ORDER BY created_at DESC, id DESC LIMIT 1000) newest",
    );
    let newest = newest.fetch_all(connection).await?;
    Ok(if let [only] = newest.as_slice() { Currency::from_code(only) } else { None })
}

/// The categories that had these slugs before.
pub async fn redirects(
    connection: &mut Connection,
    slugs: &[String],
) -> sqlx::Result<HashMap<String, String>> {
    let known =
        sqlx::query!("SELECT slug, category FROM products.category_redirects WHERE slug = ANY($1)", slugs);
    Ok(known.fetch_all(connection).await?.into_iter().map(|row| (row.slug, row.category)).collect())
}

/// The last entries in the ledgers of these products' stock, by the products' keys.
pub async fn stock_versions(
    connection: &mut Connection,
    there: &HashMap<String, Found>,
) -> sqlx::Result<HashMap<String, i64>> {
    let (keys, ids): (Vec<String>, Vec<Uuid>) =
        there.iter().map(|(key, found)| (key.clone(), found.id)).unzip();
    let versions = sqlx::query!(
        r#"SELECT n.key AS "key!", COALESCE((SELECT max(seq) FROM products.stock_ledger WHERE product_id = n.id), 0) AS "seq!"
           FROM UNNEST($1::text[], $2::uuid[]) AS n (key, id)"#,
        &keys,
        &ids,
    );
    Ok(versions.fetch_all(connection).await?.into_iter().map(|row| (row.key, row.seq)).collect())
}

/// What these lines did to stock when they came with this key before.
pub async fn changes(
    connection: &mut Connection,
    user: Uuid,
    key: &str,
    lines: &[u64],
) -> sqlx::Result<Changes> {
    let lines: Vec<i64> = lines.iter().map(|line| line.cast_signed()).collect();
    let done = sqlx::query!(
        "SELECT line, sku_key, counted, units FROM products.import_changes
         WHERE user_id = $1 AND key = $2 AND line = ANY($3)",
        user,
        key,
        &lines,
    );
    let done = done.fetch_all(connection).await?.into_iter();
    let units = |counted, units| if counted { Units::Exactly(units) } else { Units::Change(units) };
    Ok(done.map(|row| (row.line.cast_unsigned(), (row.sku_key, units(row.counted, row.units)))).collect())
}

/// Records what lines do to stock. Imports take turns, so no other import has recorded them meanwhile.
pub async fn record_changes(
    connection: &mut Connection,
    user: Uuid,
    key: &str,
    changes: &[(u64, String, Units)],
) -> sqlx::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let lines: Vec<i64> = changes.iter().map(|(line, ..)| line.cast_signed()).collect();
    let skus: Vec<String> = changes.iter().map(|(_, sku, _)| sku.clone()).collect();
    let counted: Vec<bool> = changes.iter().map(|(.., units)| matches!(units, Units::Exactly(_))).collect();
    let number = |units: &Units| match *units {
        Units::Exactly(units) | Units::Change(units) => units,
    };
    let units: Vec<i32> = changes.iter().map(|(.., units)| number(units)).collect();
    sqlx::query!(
        "INSERT INTO products.import_changes (user_id, key, line, sku_key, counted, units)
         SELECT $1, $2, * FROM UNNEST($3::bigint[], $4::text[], $5::bool[], $6::int[])",
        user,
        key,
        &lines,
        &skus,
        &counted,
        &units,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to 10,000 records that are older than keys are kept; true when there may be more.
pub async fn forget_changes(connection: &mut Connection) -> sqlx::Result<bool> {
    let forgotten = sqlx::query!(
        "DELETE FROM products.import_changes WHERE (user_id, key, line) IN (
             SELECT user_id, key, line FROM products.import_changes
             WHERE noted_at < now() - make_interval(secs => $1) LIMIT 10000)",
        KEY_LIFE.as_secs_f64(),
    );
    Ok(forgotten.execute(connection).await?.rows_affected() == 10_000)
}

/// Those of the slugs that are categories, with their levels: 1 at the top.
pub async fn categories(connection: &mut Connection, slugs: &[String]) -> sqlx::Result<HashMap<String, i32>> {
    let known = sqlx::query!(
        r#"WITH RECURSIVE line AS (
               SELECT slug, parent, 1 AS level FROM products.categories WHERE slug = ANY($1)
               UNION ALL SELECT line.slug, c.parent, line.level + 1
               FROM line JOIN products.categories c ON c.slug = line.parent WHERE line.level < $2)
           SELECT slug AS "slug!", max(level) AS "level!" FROM line GROUP BY slug"#,
        slugs,
        MOST_LEVELS,
    );
    let known = known.fetch_all(connection).await?.into_iter().map(|row| (row.slug, row.level));
    Ok(known.collect())
}

/// A category to make.
pub struct Category<'a> {
    pub slug: &'a str,
    pub name: &'a str,
    pub parent: Option<String>,
}

/// Adds categories after their siblings. It is one statement, so that one of them may be another's parent.
pub async fn add_categories(connection: &mut Connection, made: &[Category<'_>]) -> sqlx::Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let slugs: Vec<String> = made.iter().map(|category| category.slug.to_owned()).collect();
    let names: Vec<String> = made.iter().map(|category| category.name.to_owned()).collect();
    let parents: Vec<Option<String>> = made.iter().map(|category| category.parent.clone()).collect();
    sqlx::query!(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT n.slug, n.name, n.parent, n.place + COALESCE(
             (SELECT max(position) FROM products.categories c WHERE c.parent IS NOT DISTINCT FROM n.parent), 0)
         FROM UNNEST($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS n (slug, name, parent, place)
         ON CONFLICT DO NOTHING",
        &slugs,
        &names,
        &parents as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of the slugs that products have.
pub async fn slugs(connection: &mut Connection, slugs: &[String]) -> sqlx::Result<HashSet<String>> {
    if slugs.is_empty() {
        return Ok(HashSet::new());
    }
    let taken = sqlx::query_scalar!("SELECT slug FROM products.products WHERE slug = ANY($1)", slugs);
    Ok(taken.fetch_all(connection).await?.into_iter().collect())
}

/// Forms as columns.
#[derive(Default)]
pub struct Rows<'a> {
    ids: Vec<Uuid>,
    skus: Vec<String>,
    sku_keys: Vec<Option<String>>,
    names: Vec<String>,
    descriptions: Vec<String>,
    prices: Vec<i64>,
    currencies: Vec<String>,
    categories: Vec<String>,
    attributes: Vec<Json<&'a BTreeMap<String, String>>>,
    /// JSON, as the rows of an array of arrays would have to be of one length.
    images: Vec<Json<&'a [String]>>,
    forms: Vec<&'a Form>,
}

impl<'a> Rows<'a> {
    pub fn new(forms: impl Iterator<Item = (Uuid, &'a Form)>) -> Self {
        let mut rows = Self::default();
        for (id, form) in forms {
            rows.forms.push(form);
            rows.ids.push(id);
            rows.skus.push(form.sku.clone());
            rows.sku_keys.push(sku::stored_key(&form.sku));
            rows.names.push(form.name.clone());
            rows.descriptions.push(form.description.clone());
            rows.prices.push(form.price.amount);
            rows.currencies.push(form.price.currency.code().to_owned());
            rows.categories.push(form.category.clone());
            rows.attributes.push(Json(&form.attributes));
            rows.images.push(Json(&form.images));
        }
        rows
    }

    /// What the products are found by.
    fn vectors(&self) -> Vec<String> {
        self.forms.iter().map(|form| indexing::vector(form)).collect()
    }
}

/// Adds products, and returns how many: fewer than given when somebody else has taken a SKU or a slug
/// meanwhile.
pub async fn insert(connection: &mut Connection, rows: &Rows<'_>, slugs: &[String]) -> sqlx::Result<u64> {
    if rows.ids.is_empty() {
        return Ok(0);
    }
    let inserted = sqlx::query!(
        "INSERT INTO products.products
             (id, sku, slug, name, description, price, currency, category, attributes, images, sku_key,
              search, words_version)
         SELECT id, sku, slug, name, description, price, currency, category, attributes,
                ARRAY(SELECT jsonb_array_elements_text(images)), sku_key, search::tsvector, $13
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                     $8::text[], $9::jsonb[], $10::jsonb[], $11::text[], $12::text[])
              AS n (id, sku, slug, name, description, price, currency, category, attributes, images, sku_key,
                    search)
         ON CONFLICT DO NOTHING",
        &rows.ids,
        &rows.skus,
        slugs,
        &rows.names,
        &rows.descriptions,
        &rows.prices,
        &rows.currencies,
        &rows.categories,
        &rows.attributes as _,
        &rows.images as _,
        &rows.sku_keys as &[Option<String>],
        &rows.vectors(),
        words::VERSION,
    );
    Ok(inserted.execute(connection).await?.rows_affected())
}

/// Replaces what the forms hold, of products that this transaction has locked.
pub async fn update(connection: &mut Connection, rows: &Rows<'_>) -> sqlx::Result<()> {
    if rows.ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE products.products p
         SET name = n.name, description = n.description, price = n.price, category = n.category,
             attributes = n.attributes, images = ARRAY(SELECT jsonb_array_elements_text(n.images)),
             search = n.search::tsvector, words_version = $9, version = p.version + 1, updated_at = now()
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::jsonb[],
                     $8::text[])
              AS n (id, name, description, price, category, attributes, images, search)
         WHERE p.id = n.id",
        &rows.ids,
        &rows.names,
        &rows.descriptions,
        &rows.prices,
        &rows.categories,
        &rows.attributes as _,
        &rows.images as _,
        &rows.vectors(),
        words::VERSION,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// As [`update`] for forms whose words are the products' own: a column that
/// the statement does not name costs no new search vector.
pub async fn update_all_but_words(connection: &mut Connection, rows: &Rows<'_>) -> sqlx::Result<()> {
    if rows.ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE products.products p
         SET price = n.price, category = n.category, images = ARRAY(SELECT jsonb_array_elements_text(n.images)),
             version = p.version + 1, updated_at = now()
         FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::jsonb[]) AS n (id, price, category, images)
         WHERE p.id = n.id",
        &rows.ids,
        &rows.prices,
        &rows.categories,
        &rows.images as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}
