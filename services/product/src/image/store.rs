//! The SQL of images.

use service::db::Connection;
use uuid::Uuid;

use super::Image;

/// The image at this place.
pub async fn find(connection: &mut Connection, product: Uuid, place: i16) -> sqlx::Result<Option<Image>> {
    sqlx::query_as!(
        Image,
        "SELECT key, media_type, size, hash, uploaded_at FROM products.images
         WHERE product_id = $1 AND place = $2",
        product,
        place,
    )
    .fetch_optional(connection)
    .await
}

pub async fn insert(
    connection: &mut Connection,
    product: Uuid,
    place: i16,
    image: &Image,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO products.images (product_id, place, key, media_type, size, hash, uploaded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        product,
        place,
        image.key,
        image.media_type,
        image.size,
        image.hash,
        image.uploaded_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes the images at these places, and returns their objects' keys.
pub async fn remove(connection: &mut Connection, product: Uuid, places: &[i16]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "DELETE FROM products.images WHERE product_id = $1 AND place = ANY($2) RETURNING key",
        product,
        places,
    )
    .fetch_all(connection)
    .await
}

/// Adds the address to the product's images, and records the change.
pub async fn show(connection: &mut Connection, product: Uuid, address: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.products
         SET images = CASE WHEN $2 = ANY(images) THEN images ELSE images || $2::text END,
             version = version + 1, updated_at = now()
         WHERE id = $1",
        product,
        address,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Has the objects deleted after this many seconds.
pub async fn discard(
    connection: &mut Connection,
    keys: &[impl AsRef<str>],
    seconds: f64,
) -> sqlx::Result<()> {
    let keys: Vec<String> = keys.iter().map(|key| key.as_ref().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO products.discarded_objects (key, delete_at)
         SELECT key, now() + make_interval(secs => $2) FROM UNNEST($1::text[]) AS key",
        &keys,
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the object off the list of those to be deleted. False when it is not
/// there any more.
pub async fn keep(connection: &mut Connection, key: &str) -> sqlx::Result<bool> {
    let kept = sqlx::query!("DELETE FROM products.discarded_objects WHERE key = $1 AND NOT claimed", key);
    Ok(kept.execute(connection).await?.rows_affected() == 1)
}

/// Up to a hundred objects that are due, for this caller alone for ten minutes.
pub async fn claim_discarded(connection: &mut Connection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "WITH due AS MATERIALIZED (
             SELECT key FROM products.discarded_objects WHERE delete_at <= now()
             ORDER BY delete_at LIMIT 100 FOR UPDATE SKIP LOCKED)
         UPDATE products.discarded_objects d SET delete_at = now() + interval '10 minutes', claimed = true
         FROM due WHERE d.key = due.key RETURNING d.key",
    )
    .fetch_all(connection)
    .await
}

pub async fn forget(connection: &mut Connection, keys: &[String]) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM products.discarded_objects WHERE key = ANY($1)", keys)
        .execute(connection)
        .await?;
    Ok(())
}
