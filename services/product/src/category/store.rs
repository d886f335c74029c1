//! The SQL of categories.

use service::db::Connection;

use super::MOST_LEVELS;
use super::edit::Place;

/// Products that one transaction moves.
const BATCH: i64 = 200;

/// A number that no other advisory lock here has.
const TURN: i64 = 0x0d0c_6b51_de02;

/// A category by itself, with the products in the shop that name it.
pub(super) struct Row {
    pub slug: String,
    pub name: String,
    pub parent: Option<String>,
    pub count: i64,
}

/// All of them, in the order to show them in.
pub(super) async fn counted(connection: &mut Connection) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"SELECT c.slug, c.name, c.parent, COALESCE(n.count, 0) AS "count!"
           FROM products.categories c
           LEFT JOIN (SELECT category, count(*) FROM products.products
                      WHERE archived_at IS NULL GROUP BY category) n ON n.category = c.slug
           ORDER BY c.position, c.slug"#
    )
    .fetch_all(connection)
    .await
}

/// As [`counted`] with no products counted.
pub(super) async fn uncounted(connection: &mut Connection) -> sqlx::Result<Vec<Row>> {
    let rows = sqlx::query!("SELECT slug, name, parent FROM products.categories ORDER BY position, slug");
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows.map(|row| Row { slug: row.slug, name: row.name, parent: row.parent, count: 0 }).collect())
}

/// The slug of the category that has this one now, or had it before.
pub async fn current_slug(connection: &mut Connection, slug: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT slug FROM products.categories WHERE slug = COALESCE(
             (SELECT category FROM products.category_redirects WHERE slug = $1), $1)",
        slug
    )
    .fetch_optional(connection)
    .await
}

/// The category and all below it; empty when there is none. An earlier slug of it is as good.
pub async fn with_descendants(connection: &mut Connection, slug: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE tree AS (
               SELECT slug FROM products.categories WHERE slug = COALESCE(
                   (SELECT category FROM products.category_redirects WHERE slug = $1), $1)
               UNION SELECT c.slug FROM products.categories c JOIN tree ON c.parent = tree.slug)
           SELECT slug AS "slug!" FROM tree"#,
        slug
    )
    .fetch_all(connection)
    .await
}

/// One transaction at a time changes the tree, so that it stays a tree.
pub async fn take_turn(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", TURN).execute(connection).await?;
    Ok(())
}

pub async fn find(connection: &mut Connection, slug: &str) -> sqlx::Result<Option<Place>> {
    sqlx::query_as!(Place, "SELECT slug, name, parent FROM products.categories WHERE slug = $1", slug)
        .fetch_optional(connection)
        .await
}

/// The slug of the category that had this one before.
pub async fn redirect(connection: &mut Connection, slug: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("SELECT category FROM products.category_redirects WHERE slug = $1", slug)
        .fetch_optional(connection)
        .await
}

/// Adds it after its siblings. False when the slug is taken.
pub(super) async fn insert(connection: &mut Connection, place: &Place) -> sqlx::Result<bool> {
    let added = sqlx::query!(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT $1, $2, $3, 1 + COALESCE(
             (SELECT max(position) FROM products.categories c WHERE c.parent IS NOT DISTINCT FROM $3), 0)
         ON CONFLICT DO NOTHING",
        place.slug,
        place.name,
        place.parent,
    );
    Ok(added.execute(connection).await?.rows_affected() == 1)
}

/// Adds many in the order given, except those whose slugs are taken.
pub async fn insert_many(
    connection: &mut Connection,
    slugs: &[String],
    names: &[String],
    parents: &[Option<String>],
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
         ON CONFLICT DO NOTHING",
        slugs,
        names,
        parents as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// From now on the slug leads to no other category.
pub(super) async fn remove_redirect(connection: &mut Connection, slug: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM products.category_redirects WHERE slug = $1", slug).execute(connection).await?;
    Ok(())
}

/// Gives it the name and the parent of `to`.
pub(super) async fn update(connection: &mut Connection, slug: &str, to: &Place) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.categories SET name = $2, parent = $3 WHERE slug = $1",
        slug,
        to.name,
        to.parent
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Its own level, and those below it.
pub(super) async fn levels(connection: &mut Connection, slug: &str) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE tree AS (
               SELECT slug, 1 AS level FROM products.categories WHERE slug = $1
               UNION ALL SELECT c.slug, tree.level + 1
               FROM products.categories c JOIN tree ON c.parent = tree.slug WHERE tree.level <= $2)
           SELECT max(level) AS "levels!" FROM tree"#,
        slug,
        MOST_LEVELS,
    )
    .fetch_one(connection)
    .await
}

/// Its level, from 1 at the top; `None` when there is no such category.
pub(super) async fn level(connection: &mut Connection, slug: &str) -> sqlx::Result<Option<i32>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE line AS (
               SELECT parent, 1 AS level FROM products.categories WHERE slug = $1
               UNION ALL SELECT c.parent, line.level + 1
               FROM line JOIN products.categories c ON c.slug = line.parent WHERE line.level <= $2)
           SELECT max(level) AS level FROM line"#,
        slug,
        MOST_LEVELS,
    )
    .fetch_one(connection)
    .await
}

/// Whether `slug` is `above`, or in it.
pub async fn is_within(connection: &mut Connection, slug: &str, above: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE line AS (
               SELECT slug, parent, 1 AS level FROM products.categories WHERE slug = $1
               UNION ALL SELECT c.slug, c.parent, line.level + 1
               FROM line JOIN products.categories c ON c.slug = line.parent WHERE line.level <= $3)
           SELECT EXISTS (SELECT FROM line WHERE slug = $2) AS "exists!""#,
        slug,
        above,
        MOST_LEVELS,
    )
    .fetch_one(connection)
    .await
}

/// Puts `from` with its contents below `into`. From then on its slug leads to `into`, so that nothing is
/// missed while its products are moved.
pub async fn lead(connection: &mut Connection, from: &str, into: &str) -> sqlx::Result<()> {
    sqlx::query!("UPDATE products.categories SET parent = $2 WHERE parent = $1", from, into)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("UPDATE products.categories SET parent = $2 WHERE slug = $1", from, into)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("UPDATE products.category_redirects SET category = $2 WHERE category = $1", from, into)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "INSERT INTO products.category_redirects (slug, category) VALUES ($1, $2)
         ON CONFLICT (slug) DO UPDATE SET category = excluded.category",
        from,
        into
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves up to 200 products, also those that are not in the shop; true when there may be more.
pub async fn move_products(connection: &mut Connection, from: &str, into: &str) -> sqlx::Result<bool> {
    let moved = sqlx::query!(
        "UPDATE products.products p SET category = $2, version = version + 1, updated_at = now()
         FROM (SELECT id FROM products.products WHERE category = $1
               ORDER BY id LIMIT $3 FOR NO KEY UPDATE) AS batch
         WHERE p.id = batch.id",
        from,
        into,
        BATCH,
    );
    Ok(moved.execute(connection).await?.rows_affected() == BATCH as u64)
}

/// Deletes it. `categories_parent_fkey` and `products_category_fkey` fail if it is not empty.
pub(super) async fn delete(connection: &mut Connection, slug: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM products.categories WHERE slug = $1", slug).execute(connection).await?;
    Ok(())
}
