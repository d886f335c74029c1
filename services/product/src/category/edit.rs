//! How the tree changes: categories are made, renamed, moved, and emptied into others.
//!
//! A slug is what products name, so another slug is another category, which all products and sub-categories are moved
//! to. That takes as many transactions as there are batches, and whoever repeats it goes on where it ended.

use serde::Serialize;
use service::db::Connection;
use service::{FieldError, Problem};
use utoipa::ToSchema;

use super::MOST_LEVELS;

/// Products that one transaction moves.
const BATCH: i64 = 200;

/// Any number that no other advisory lock here has.
const TURN: i64 = 0x0d0c_6b51_de02;

/// A category by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CategoryPlace)]
pub struct Place {
    pub slug: String,
    pub name: String,
    /// The slug of the one it is in; null at the top.
    #[schema(required)]
    pub parent: Option<String>,
}

/// One at a time changes the tree, so that it stays one.
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

/// Adds it behind its siblings. 409 `slug_taken`, 422 for a parent that there is not or that is too deep.
pub async fn add(connection: &mut Connection, place: &Place) -> Result<(), Problem> {
    take_turn(connection).await?;
    require_room(connection, "/parent", place.parent.as_deref(), 1).await?;
    let added = sqlx::query!(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT $1, $2, $3, 1 + COALESCE(
             (SELECT max(position) FROM products.categories c WHERE c.parent IS NOT DISTINCT FROM $3), 0)
         ON CONFLICT DO NOTHING",
        place.slug,
        place.name,
        place.parent,
    );
    if added.execute(&mut *connection).await?.rows_affected() == 0 {
        return Err(Problem::conflict("slug_taken", "Another category has this slug."));
    }
    // What led elsewhere is a category of its own again.
    sqlx::query!("DELETE FROM products.category_redirects WHERE slug = $1", place.slug)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives it the name and the parent of `to`. 422 where that would be within itself, or too deep.
pub async fn place(connection: &mut Connection, slug: &str, to: &Place) -> Result<(), Problem> {
    if let Some(parent) = &to.parent
        && is_within(connection, parent, slug).await?
    {
        let detail = "A category can't be within itself.";
        return Err(Problem::invalid(vec![FieldError::new("/parent", "invalid_value", detail)]));
    }
    let levels = levels(connection, slug).await?;
    require_room(connection, "/parent", to.parent.as_deref(), levels).await?;
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
async fn levels(connection: &mut Connection, slug: &str) -> sqlx::Result<i32> {
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

/// 422 when what is in `from` would be too deep in `into`.
pub async fn require_room_to_merge(
    connection: &mut Connection,
    from: &str,
    into: &str,
) -> Result<(), Problem> {
    let levels = levels(connection, from).await? - 1;
    require_room(connection, "/move_to", Some(into), levels).await
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

/// 422 when `parent` is unknown, or has not so many levels left below it.
async fn require_room(
    connection: &mut Connection,
    pointer: &str,
    parent: Option<&str>,
    levels: i32,
) -> Result<(), Problem> {
    let Some(parent) = parent else { return Ok(()) };
    let refused = |code: &str, detail: String| Problem::invalid(vec![FieldError::new(pointer, code, detail)]);
    let level = sqlx::query_scalar!(
        r#"WITH RECURSIVE line AS (
               SELECT parent, 1 AS level FROM products.categories WHERE slug = $1
               UNION ALL SELECT c.parent, line.level + 1
               FROM line JOIN products.categories c ON c.slug = line.parent WHERE line.level <= $2)
           SELECT max(level) AS level FROM line"#,
        parent,
        MOST_LEVELS,
    );
    let Some(level) = level.fetch_one(connection).await? else {
        return Err(refused("unknown_category", "There is no such category.".to_owned()));
    };
    if level + levels > MOST_LEVELS {
        return Err(refused("too_deep", format!("Categories have {MOST_LEVELS} levels at most.")));
    }
    Ok(())
}

/// Puts `from` with all that is in it below `into`, which it leads to from then on, so that nothing is missed while its
/// products are moved there.
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

/// Moves up to 200 products, those that are not in the shop among them; true when there may be more.
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

/// Deletes it. 409 `category_not_empty` when it has products or sub-categories.
pub async fn remove(connection: &mut Connection, slug: &str) -> Result<(), Problem> {
    let removed = sqlx::query!("DELETE FROM products.categories WHERE slug = $1", slug);
    match removed.execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => match service::db::violated_constraint(&error) {
            Some("products_category_fkey" | "categories_parent_fkey") => {
                let detail = "It has products or sub-categories; `move_to` names where they go.";
                Err(Problem::conflict("category_not_empty", detail))
            }
            _ => Err(error.into()),
        },
    }
}
