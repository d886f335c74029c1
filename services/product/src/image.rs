//! Uploaded images: bytes in the object store, the rest in the database.
//!
//! Every upload gets a key of its own. It is written down before the object is made, as one to be deleted;
//! the transaction that shows the image takes it off that list. So nothing is left wherever an upload ends:
//! what is on the list is swept. A product's `images` names exactly those it has.

mod store;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use object_store::PutPayload;
use service::db::Connection;
use service::db::Pool;
use service::{FieldError, Problem, Pulse};
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::objects::Objects;
use crate::schema::MAX_IMAGES;

pub use store::find;

/// Places for uploaded images: 0 to 9.
pub const PLACES: i16 = 10;

/// An upload that never ended is swept after this. No upload takes as long.
const UPLOAD_SECONDS: f64 = 3600.0;
/// A replaced image is swept after this: clients that are reading it may finish.
const READERS_SECONDS: f64 = 300.0;
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A store that does not answer delays a deletion until its deadline: the others go on meanwhile, and a sweep
/// ends.
const DELETIONS_AT_ONCE: usize = 16;
const SWEEP_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Jpeg,
    Png,
    WebP,
}

impl Kind {
    /// The first bytes of each format (<https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern>).
    pub fn sniff(start: &[u8]) -> Option<Self> {
        match start {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', b'V', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
        }
    }
}

/// An image that a product has.
#[derive(Clone, Debug)]
pub struct Image {
    pub key: String,
    pub media_type: String,
    pub size: i64,
    /// SHA-256 of the bytes.
    pub hash: Vec<u8>,
    pub uploaded_at: OffsetDateTime,
}

/// An image's address at every service that answers for the shop.
pub fn address(product: Uuid, place: i16) -> String {
    format!("/api/v1/products/{product}/images/{place}")
}

/// Whether a product's image is an uploaded one.
pub fn is_own(image: &str) -> bool {
    image.starts_with('/')
}

/// Puts bytes into the object store, where they stay an hour unless
/// [`attach`]ed. Returns their key.
pub async fn upload(
    pool: &Pool,
    objects: &Objects,
    product: Uuid,
    payload: PutPayload,
) -> Result<String, Problem> {
    let key = format!("images/{product}/{}", Uuid::now_v7());
    store::discard(&mut *pool.acquire().await?, &[&key], UPLOAD_SECONDS).await?;
    objects.put(&key, payload).await.map_err(unavailable)?;
    Ok(key)
}

/// Shows what was uploaded in place of what was there. The product is locked; it has the images `shown`.
/// 422 when it would have too many images.
pub async fn attach(
    connection: &mut Connection,
    product: Uuid,
    shown: &[String],
    place: i16,
    image: &Image,
) -> Result<(), Problem> {
    if !store::keep(connection, &image.key).await? {
        return Err(Problem::unavailable("The upload took too long; send the image again."));
    }
    if let Some(old) = store::remove(connection, product, &[place]).await?.pop() {
        store::discard(connection, &[&old], READERS_SECONDS).await?;
    }
    let address = address(product, place);
    if !shown.contains(&address) && shown.len() >= MAX_IMAGES {
        let detail = format!("The product has {MAX_IMAGES} images.");
        return Err(Problem::invalid(vec![FieldError::new("/images", "too_many", detail)]));
    }
    store::insert(connection, product, place, image).await?;
    Ok(store::show(connection, product, &address).await?)
}

/// Takes away the images that `images` no longer names. The product is locked.
pub async fn prune(connection: &mut Connection, product: Uuid, images: &[String]) -> sqlx::Result<()> {
    let gone = (0..PLACES).filter(|place| !images.contains(&address(product, *place)));
    let keys = store::remove(connection, product, &gone.collect::<Vec<_>>()).await?;
    store::discard(connection, &keys, READERS_SECONDS).await
}

pub fn unavailable(error: object_store::Error) -> Problem {
    tracing::error!(%error, "objects.failed");
    Problem::unavailable("Images can't be stored or read at the moment; try again.")
}

/// Deletes images that are due, until `stop`.
pub async fn sweep_until(pool: &Pool, objects: &Objects, stop: &CancellationToken, pulse: &Pulse) {
    loop {
        // What a stop interrupts is claimed again later.
        let swept = tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(pool, objects) => swept,
        };
        let pause = match swept {
            Ok(0) => SWEEP_EVERY,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "images.not_swept");
                SWEEP_EVERY
            }
        };
        if pulse.rest(stop.run_until_cancelled(sleep(pause))).await.is_none() {
            return;
        }
    }
}

/// Deletes up to a hundred objects, and returns how many.
async fn sweep(pool: &Pool, objects: &Objects) -> anyhow::Result<usize> {
    let keys = store::claim_discarded(&mut *pool.acquire().await?).await?;
    let claimed = keys.len();
    let deletions = stream::iter(keys).map(async |key| objects.delete(&key).await.map(|()| key));
    // What is left at the end of the time is claimed again later.
    let deletions = deletions.buffer_unordered(DELETIONS_AT_ONCE).take_until(sleep(SWEEP_WITHIN));
    let outcomes: Vec<Result<String, object_store::Error>> = deletions.collect().await;
    let left = claimed - outcomes.len();
    let (mut deleted, mut failed) = (Vec::with_capacity(claimed), None);
    for outcome in outcomes {
        match outcome {
            Ok(key) => deleted.push(key),
            Err(error) => failed = Some(error),
        }
    }
    store::forget(&mut *pool.acquire().await?, &deleted).await?;
    // One that can't be deleted does not hold up the others.
    if let Some(error) = failed {
        return Err(error.into());
    }
    anyhow::ensure!(left == 0, "{left} objects were not deleted in time");
    Ok(deleted.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_bytes() {
        assert_eq!(Kind::sniff(b"\xFF\xD8\xFF\xE0 JFIF"), Some(Kind::Jpeg));
        assert_eq!(Kind::sniff(b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR"), Some(Kind::Png));
        assert_eq!(Kind::sniff(b"RIFF\x24\0\0\0WEBPVP8 "), Some(Kind::WebP));
        for other in
            [&b""[..], b"\xFF\xD8", b"GIF89a", b"<svg xmlns=", b"RIFF\x24\0\0\0WAVEfmt ", b"\x89PNG\n"]
        {
            assert_eq!(Kind::sniff(other), None, "{other:?}");
        }
    }
}
