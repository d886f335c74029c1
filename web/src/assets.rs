//! The style, the script and the pictures that belong to pages. Their addresses have the hash of what they are, so that
//! browsers keep them for good.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
    hash: String,
}

static ASSETS: LazyLock<[Asset; 6]> = LazyLock::new(|| {
    [
        asset("shop.css", "text/css; charset=utf-8", include_bytes!("../assets/shop.css")),
        asset("shop.js", "text/javascript; charset=utf-8", include_bytes!("../assets/shop.js")),
        asset("admin.css", "text/css; charset=utf-8", include_bytes!("../assets/admin.css")),
        asset("admin.js", "text/javascript; charset=utf-8", include_bytes!("../assets/admin.js")),
        asset("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
        asset("sprite.svg", "image/svg+xml", include_bytes!("../assets/sprite.svg")),
    ]
});

fn asset(name: &'static str, media_type: &'static str, bytes: &'static [u8]) -> Asset {
    let hash = hex::encode(&digest(&SHA256, bytes).as_ref()[..8]);
    Asset { name, media_type, bytes, hash }
}

/// Where the asset is; nowhere when there is none.
pub fn address(name: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    asset.map(|asset| format!("/assets/{}/{}", asset.hash, asset.name)).unwrap_or_default()
}

pub async fn serve(Path((hash, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // During an update a page of one release asks another: better ours than none, but not for good.
    let keep = if hash == asset.hash { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, asset.media_type), (header::CACHE_CONTROL, keep)], asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_ask_for_assets_that_exist() {
        let base = include_str!("../templates/base.html");
        for asset in ["shop.css", "shop.js", "icon.svg"] {
            assert!(base.contains(&format!("\"{asset}\"")), "{asset}");
            assert!(address(asset).ends_with(asset));
        }
        assert_eq!(address("none.css"), "");
    }
}
