//! The SQL of products, except lists of them.

use std::collections::BTreeMap;

use service::db::{self, Connection};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Form, NewProduct, Product, Status, Stock, indexing, sku};

struct Row {
    pub id: Uuid,
    pub sku: String,
    pub slug: String,
    pub name: String,
    pub description: String,
    pub price: i64,
    pub currency: String,
    pub category: String,
    pub attributes: Json<BTreeMap<String, String>>,
    pub images: Vec<String>,
    pub available: i32,
    pub version: i64,
    pub archived: bool,
    pub draft: bool,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// `SELECT` of a [`Row`]; `$rest` is what follows the FROM of `products p` and
/// `stock s`.
macro_rules! select {
    ($rest:tt, $($argument:expr),+) => {
        select!(
            @ "s.on_hand - s.reserved",
            "FROM products.products p JOIN products.stock s ON s.product_id = p.id ",
            $rest,
            $($argument),+
        )
    };
    (@ $available:tt, $from:tt, $rest:tt, $($argument:expr),+) => {
        sqlx::query_as!(
            Row,
            r#"SELECT p.id, p.sku, p.slug, p.name, p.description, p.price, p.currency, p.category,
                      p.attributes AS "attributes: _", p.images, "# + $available + r#" AS "available!",
                      p.version, p.archived_at IS NOT NULL AS "archived!", p.draft, p.created_at, p.updated_at "#
                + $from + $rest,
            $($argument),+
        )
    };
}

impl TryFrom<Row> for Product {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            sku: row.sku,
            slug: row.slug,
            name: row.name,
            description: row.description,
            price: db::money(row.price, &row.currency)?,
            category: row.category,
            attributes: row.attributes.0,
            images: row.images,
            stock: Stock { available: row.available },
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
            status: match (row.archived, row.draft) {
                (false, _) => Status::Published,
                (true, true) => Status::Draft,
                (true, false) => Status::Deleted,
            },
        })
    }
}

/// The named products, archived ones included.
pub async fn by_ids(connection: &mut Connection, ids: &[Uuid]) -> sqlx::Result<Vec<Product>> {
    let rows = select!("WHERE p.id = ANY($1) ORDER BY p.id", ids);
    let rows = rows.fetch_all(connection).await?;
    rows.into_iter().map(Product::try_from).collect()
}

/// The named products in the order named.
pub async fn in_order(connection: &mut Connection, ids: &[Uuid]) -> sqlx::Result<Vec<Product>> {
    let mut products = by_ids(connection, ids).await?;
    products.sort_by_cached_key(|product| ids.iter().position(|id| *id == product.id));
    Ok(products)
}

/// Those of the named products that are in the shop. A name is an id or a slug.
pub async fn named(connection: &mut Connection, names: &[String]) -> sqlx::Result<Vec<Option<Product>>> {
    let ids: Vec<Option<Uuid>> = names.iter().map(|name| name.parse().ok()).collect();
    let wanted: Vec<Uuid> = ids.iter().flatten().copied().collect();
    let by_id = if wanted.is_empty() { Vec::new() } else { by_ids(connection, &wanted).await? };
    let in_shop =
        |id: &Uuid| by_id.iter().find(|product| product.id == *id && product.status.is_published()).cloned();
    let mut found: Vec<Option<Product>> = ids.iter().map(|id| in_shop(id.as_ref()?)).collect();
    // PostgreSQL's text has no NUL, and so no slug has.
    let may_be = |name: &String| !name.contains('\0');
    let rest = names.iter().zip(&found).filter(|(name, product)| product.is_none() && may_be(name));
    let slugs: Vec<String> = rest.map(|(name, _)| name.clone()).collect();
    if !slugs.is_empty() {
        let rows = select!("WHERE p.slug = ANY($1) AND p.archived_at IS NULL", &slugs);
        let rows = rows.fetch_all(connection).await?;
        let by_slug = rows.into_iter().map(Product::try_from).collect::<sqlx::Result<Vec<_>>>()?;
        for (name, product) in names.iter().zip(&mut found).filter(|(_, product)| product.is_none()) {
            *product = by_slug.iter().find(|product| product.slug == *name).cloned();
        }
    }
    Ok(found)
}

/// The first and the last of the currencies that products in the shop have prices in.
pub async fn currencies(connection: &mut Connection) -> sqlx::Result<(Option<String>, Option<String>)> {
    let row = sqlx::query!(
        "SELECT min(currency) AS first, max(currency) AS last FROM products.products WHERE archived_at IS NULL"
    );
    let row = row.fetch_one(connection).await?;
    Ok((row.first, row.last))
}

/// The newest products of the whole shop, from after one of this time and id.
pub async fn newest(
    connection: &mut Connection,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Product>> {
    let (time, id) = after.unzip();
    // Stock is looked up for each row. A join would read all of it, as the plan is made for any limit.
    let rows = select!(
        @ "(SELECT s.on_hand - s.reserved FROM products.stock s WHERE s.product_id = p.id)",
        "FROM products.products p ",
        "WHERE p.archived_at IS NULL AND (p.created_at, p.id)
             < (COALESCE($1, 'infinity'::timestamptz), COALESCE($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
         ORDER BY p.created_at DESC, p.id DESC LIMIT $3",
        time,
        id,
        limit
    );
    rows.fetch_all(connection).await?.into_iter().map(Product::try_from).collect()
}

/// Products that are not in the shop: drafts or deleted ones, from after the one of this id.
pub async fn not_in_shop(
    connection: &mut Connection,
    drafts: bool,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Product>> {
    let rows = select!(
        @ "(SELECT s.on_hand - s.reserved FROM products.stock s WHERE s.product_id = p.id)",
        "FROM products.products p ",
        "WHERE p.archived_at IS NOT NULL AND p.draft = $1
           AND p.id < COALESCE($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
         ORDER BY p.id DESC LIMIT $3",
        drafts,
        after,
        limit
    );
    rows.fetch_all(connection).await?.into_iter().map(Product::try_from).collect()
}

/// The product in the shop with this id or slug.
pub async fn find(connection: &mut Connection, name: &str) -> sqlx::Result<Option<Product>> {
    let id = name.parse::<Uuid>().ok();
    let row = select!(
        "WHERE (p.id = $1 OR p.slug = $2) AND p.archived_at IS NULL ORDER BY p.id = $1 DESC LIMIT 1",
        id,
        name
    );
    row.fetch_optional(connection).await?.map(Product::try_from).transpose()
}

/// As [`find`] of what staff may change: drafts too.
pub async fn find_for_staff(connection: &mut Connection, name: &str) -> sqlx::Result<Option<Product>> {
    let id = name.parse::<Uuid>().ok();
    let row = select!(
        "WHERE (p.id = $1 OR p.slug = $2) AND (p.draft OR p.archived_at IS NULL) ORDER BY p.id = $1 DESC LIMIT 1",
        id,
        name
    );
    row.fetch_optional(connection).await?.map(Product::try_from).transpose()
}

/// As [`find_for_staff`], with the product's row locked. Its stock row is not.
pub async fn find_locked(connection: &mut Connection, name: &str) -> sqlx::Result<Option<Product>> {
    let product = find_any_locked(connection, name).await?;
    Ok(product.filter(|product| product.status != Status::Deleted))
}

/// As [`find_locked`], of deleted products too.
pub async fn find_any_locked(connection: &mut Connection, name: &str) -> sqlx::Result<Option<Product>> {
    let id = name.parse::<Uuid>().ok();
    let row = select!(
        "WHERE p.id = $1 OR p.slug = $2 ORDER BY p.id = $1 DESC LIMIT 1 FOR NO KEY UPDATE OF p",
        id,
        name
    );
    row.fetch_optional(connection).await?.map(Product::try_from).transpose()
}

/// A number that no other advisory lock here has.
const TURN: i64 = 0x0d0c_6b51_de01;

/// A transaction that adds one product excludes those that add many, until it ends.
pub async fn take_turn_to_add(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", TURN).execute(connection).await?;
    Ok(())
}

/// A transaction that adds many products excludes all others that add some, until it ends: two batches with
/// the same SKUs or slugs in another order would wait for each other, and a batch first reads which of them
/// are free. Take it before any row lock.
pub async fn take_turn_to_add_many(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", TURN).execute(connection).await?;
    Ok(())
}

/// False when the slug is taken.
pub async fn insert(
    connection: &mut Connection,
    id: Uuid,
    slug: &str,
    new: &NewProduct,
) -> sqlx::Result<bool> {
    let form = &new.form;
    let inserted = sqlx::query!(
        "INSERT INTO products.products
             (id, sku, slug, name, description, price, currency, category, attributes, images, sku_key,
              search, words_version, draft, archived_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::tsvector, $13, $14,
                 CASE WHEN $14 THEN now() END)
         ON CONFLICT ON CONSTRAINT products_slug_key DO NOTHING",
        id,
        form.sku,
        slug,
        form.name,
        form.description,
        form.price.amount,
        form.price.currency.code(),
        form.category,
        Json(&form.attributes) as _,
        &form.images,
        sku::stored_key(&form.sku),
        indexing::vector(form),
        words::VERSION,
        new.status == Status::Draft,
    );
    Ok(inserted.execute(connection).await?.rows_affected() == 1)
}

/// A SKU that differed by case alone stays so until it is changed.
pub async fn update(connection: &mut Connection, id: Uuid, form: &Form) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.products
         SET sku = $2, name = $3, description = $4, price = $5, currency = $6, category = $7,
             attributes = $8, images = $9, version = version + 1, updated_at = now(),
             sku_key = CASE WHEN sku = $2 THEN sku_key ELSE $10 END,
             search = $11::text::tsvector, words_version = $12
         WHERE id = $1",
        id,
        form.sku,
        form.name,
        form.description,
        form.price.amount,
        form.price.currency.code(),
        form.category,
        Json(&form.attributes) as _,
        &form.images,
        sku::stored_key(&form.sku),
        indexing::vector(form),
        words::VERSION,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Records that something outside the product's own row changed.
pub async fn touch(connection: &mut Connection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE products.products SET version = version + 1, updated_at = now() WHERE id = $1", id)
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn set_status(connection: &mut Connection, id: Uuid, status: Status) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.products
         SET archived_at = CASE WHEN NOT $2 THEN now() END, draft = $3, deleted_draft = draft AND $4,
             version = version + 1, updated_at = now()
         WHERE id = $1",
        id,
        status.is_published(),
        status == Status::Draft,
        status == Status::Deleted,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes a deleted product what it was before: in the shop, or a draft.
pub async fn restore(connection: &mut Connection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.products
         SET archived_at = CASE WHEN deleted_draft THEN archived_at END, draft = deleted_draft, deleted_draft = false,
             version = version + 1, updated_at = now()
         WHERE id = $1",
        id,
    )
    .execute(connection)
    .await?;
    Ok(())
}
