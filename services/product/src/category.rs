//! The tree of categories.

pub mod edit;
pub mod store;

use std::collections::HashMap;

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

/// Most levels of the tree. It is built and written level within level, and clients that read JSON stop at
/// some depth, too.
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
    Ok(built(store::counted(connection).await?))
}

/// As [`tree`] with no products counted, which in a big shop takes a while.
pub async fn uncounted(connection: &mut Connection) -> sqlx::Result<Vec<Category>> {
    Ok(built(store::uncounted(connection).await?))
}

/// Categories by their parents.
type Siblings = HashMap<Option<String>, Vec<Category>>;

fn built(rows: Vec<store::Row>) -> Vec<Category> {
    let mut children: Siblings = HashMap::new();
    for row in rows {
        let (slug, name, product_count) = (row.slug, row.name, row.count);
        let category = Category { slug, name, product_count, children: Vec::new() };
        children.entry(row.parent).or_default().push(category);
    }
    below(None, &mut children)
}

/// Takes each category's children out of the map once, so it ends even if there is a cycle.
fn below(parent: Option<String>, children: &mut Siblings) -> Vec<Category> {
    let mut siblings = children.remove(&parent).unwrap_or_default();
    for category in &mut siblings {
        category.children = below(Some(category.slug.clone()), children);
        category.product_count += category.children.iter().map(|child| child.product_count).sum::<i64>();
    }
    siblings
}
