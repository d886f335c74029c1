//! Changes of the tree: categories are made, renamed, moved, and merged into others.
//!
//! Products name their category by its slug. So another slug makes another category, to which all products
//! and sub-categories are moved. That takes as many transactions as there are batches; a repeated request
//! goes on where the last one ended.

use serde::Serialize;
use service::db::Connection;
use service::{FieldError, Problem};
use utoipa::ToSchema;

use super::{MOST_LEVELS, store};

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

/// Adds it after its siblings. 409 `slug_taken`, 422 for a parent that does not exist or is too deep.
pub async fn add(connection: &mut Connection, place: &Place) -> Result<(), Problem> {
    store::take_turn(connection).await?;
    require_depth(connection, "/parent", place.parent.as_deref(), 1).await?;
    if !store::insert(connection, place).await? {
        return Err(Problem::conflict("slug_taken", "Another category has this slug."));
    }
    // A slug that led to another category is a category of its own again.
    Ok(store::remove_redirect(connection, &place.slug).await?)
}

/// Gives it the name and the parent of `to`. 422 where that would be within itself, or too deep.
pub async fn place(connection: &mut Connection, slug: &str, to: &Place) -> Result<(), Problem> {
    if let Some(parent) = &to.parent
        && store::is_within(connection, parent, slug).await?
    {
        let detail = "A category can't be within itself.";
        return Err(Problem::invalid(vec![FieldError::new("/parent", "invalid_value", detail)]));
    }
    let levels = store::levels(connection, slug).await?;
    require_depth(connection, "/parent", to.parent.as_deref(), levels).await?;
    Ok(store::update(connection, slug, to).await?)
}

/// 422 when the contents of `from` would be too deep in `into`.
pub async fn require_depth_to_merge(
    connection: &mut Connection,
    from: &str,
    into: &str,
) -> Result<(), Problem> {
    let levels = store::levels(connection, from).await? - 1;
    require_depth(connection, "/move_to", Some(into), levels).await
}

/// 422 when `parent` is unknown, or has fewer levels left below it.
async fn require_depth(
    connection: &mut Connection,
    pointer: &str,
    parent: Option<&str>,
    levels: i32,
) -> Result<(), Problem> {
    let Some(parent) = parent else { return Ok(()) };
    let refused = |code: &str, detail: String| Problem::invalid(vec![FieldError::new(pointer, code, detail)]);
    let Some(level) = store::level(connection, parent).await? else {
        return Err(refused("unknown_category", "There is no such category.".to_owned()));
    };
    if level + levels > MOST_LEVELS {
        return Err(refused("too_deep", format!("Categories have {MOST_LEVELS} levels at most.")));
    }
    Ok(())
}

/// Deletes it. 409 `category_not_empty` when it has products or sub-categories.
pub async fn remove(connection: &mut Connection, slug: &str) -> Result<(), Problem> {
    match store::delete(connection, slug).await {
        Ok(()) => Ok(()),
        Err(error) => match service::db::violated_constraint(&error) {
            Some("products_category_fkey" | "categories_parent_fkey") => {
                let detail = "It has products or sub-categories; `move_to` names where they go.";
                Err(Problem::conflict("category_not_empty", detail))
            }
            _ => Err(error.into()),
        },
    }
}
