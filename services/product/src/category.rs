//! The tree of categories.

pub mod edit;

use std::collections::HashMap;

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

/// Most levels of the tree: it is built and written level within level, and clients that read JSON stop at some depth
/// too.
pub const MOST_LEVELS: i32 = 10;

#[derive(Debug, Serialize, ToSchema)]
pub struct Category {
    pub slug: String,
    pub name: String,
    /// Products in the shop, those of sub-categories included.
    #[schema(minimum = 0)]
    pub product_count: i64,
    #[schema(no_recursion)]
    pub children: Vec<Category>,
}

/// The top categories with all below them.
pub async fn tree(connection: &mut Connection) -> sqlx::Result<Vec<Category>> {
    let rows = sqlx::query!(
        r#"SELECT c.slug, c.name, c.parent, COALESCE(n.count, 0) AS "count!"
           FROM products.categories c
           LEFT JOIN (SELECT category, count(*) FROM products.products
                      WHERE archived_at IS NULL GROUP BY category) n ON n.category = c.slug
           ORDER BY c.position, c.slug"#
    );
    let mut children: Siblings = HashMap::new();
    for row in rows.fetch_all(connection).await? {
        children.entry(row.parent).or_default().push(Category {
            slug: row.slug,
            name: row.name,
            product_count: row.count,
            children: Vec::new(),
        });
    }
    Ok(below(None, &mut children))
}

/// As [`tree`] with no products counted, which in a big shop takes a while.
pub async fn uncounted(connection: &mut Connection) -> sqlx::Result<Vec<Category>> {
    let rows = sqlx::query!("SELECT slug, name, parent FROM products.categories ORDER BY position, slug");
    let mut children: Siblings = HashMap::new();
    for row in rows.fetch_all(connection).await? {
        children.entry(row.parent).or_default().push(Category {
            slug: row.slug,
            name: row.name,
            product_count: 0,
            children: Vec::new(),
        });
    }
    Ok(below(None, &mut children))
}

/// Categories by their parents.
type Siblings = HashMap<Option<String>, Vec<Category>>;

/// Takes each category's children out of the map once, so it ends even on a cycle.
fn below(parent: Option<String>, children: &mut Siblings) -> Vec<Category> {
    let mut siblings = children.remove(&parent).unwrap_or_default();
    for category in &mut siblings {
        category.children = below(Some(category.slug.clone()), children);
        category.product_count += category.children.iter().map(|child| child.product_count).sum::<i64>();
    }
    siblings
}

pub async fn exists(connection: &mut Connection, slug: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM products.categories WHERE slug = $1) AS "exists!""#,
        slug
    )
    .fetch_one(connection)
    .await
}

/// The category and all below it; empty when there is none. A slug that it had before is as good.
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
