//! Which requests are accepted: origins and form tokens, and the headers that say what a page may do.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use axum_extra::extract::cookie::Key;

/// Nothing inline, nothing from elsewhere; a bank's page is reached by a link.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// A page says itself whether it may be kept; one that does not may not.
pub fn with_headers(mut response: Response, secure: bool) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if secure {
        // Of this host alone: what others below it do is not ours to say.
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request that changes something comes from a page of ours, as the browser says.
pub fn is_from_here(headers: &HeaderMap, origin: &str) -> bool {
    let is = |name: HeaderName, wanted: &[&str]| {
        let mut given = headers.get_all(name).iter();
        let value = given.next().and_then(|value| value.to_str().ok());
        value.is_some_and(|value| wanted.contains(&value)) && given.next().is_none()
    };
    is(HeaderName::from_static("sec-fetch-site"), &["same-origin", "none"]) || is(header::ORIGIN, &[origin])
}

const SALT: usize = 8;

fn form_key(key: &Key) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.signing())
}

fn message(salt: &[u8], form_id: &str) -> Vec<u8> {
    [b"form token", salt, form_id.as_bytes()].concat()
}

/// Another one each time: a compressed page with the same secret in it could be made to tell it (BREACH).
pub fn form_token(key: &Key, form_id: &str) -> String {
    let salt = rand::random::<[u8; SALT]>();
    let tag = hmac::sign(&form_key(key), &message(&salt, form_id));
    hex::encode([&salt, tag.as_ref()].concat())
}

pub fn is_form_token(key: &Key, form_id: &str, token: &str) -> bool {
    let token = hex::decode(token).unwrap_or_default();
    let Some((salt, tag)) = token.split_first_chunk::<SALT>() else { return false };
    !form_id.is_empty() && hmac::verify(&form_key(key), &message(salt, form_id), tag).is_ok()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_form_token_is_good_for_its_visitor_alone() {
        let (key, other) = (Key::generate(), Key::generate());
        let token = form_token(&key, "ada");
        assert_ne!(token, form_token(&key, "ada"));
        assert!(is_form_token(&key, "ada", &token));
        assert!(!is_form_token(&key, "bob", &token));
        assert!(!is_form_token(&other, "ada", &token));
        assert!(!is_form_token(&key, "", &form_token(&key, "")), "who has no cookie has no token");
        for bad in ["", "00", "zz", &token[2..], &format!("{token}00")] {
            assert!(!is_form_token(&key, "ada", bad), "{bad}");
        }
    }

    #[test]
    fn a_change_comes_from_a_page_of_ours() {
        let here = "https://shop.example.com";
        let is = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_from_here(&headers, here)
        };
        assert!(is(&[("sec-fetch-site", "same-origin")]));
        assert!(is(&[("sec-fetch-site", "none")]));
        assert!(is(&[("origin", "https://shop.example.com")]), "a browser without Sec-Fetch-Site");
        assert!(!is(&[("sec-fetch-site", "same-site"), ("origin", "https://evil.example.com")]));
        assert!(!is(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]));
        assert!(!is(&[("origin", "null")]));
        assert!(!is(&[("origin", "https://shop.example.com.evil.example")]));
        assert!(!is(&[("origin", "https://shop.example.com"), ("origin", "https://evil.example")]));
        assert!(!is(&[]));
    }

    #[test]
    fn a_page_may_run_nothing_inline_and_load_nothing_from_elsewhere() {
        let page = with_headers("page".into_response(), true);
        let of =
            |name: &str| page.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(!of("content-security-policy").contains("unsafe"));
        assert!(of("content-security-policy").starts_with("default-src 'none'"));
        assert!(of("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(of("cache-control"), "no-store");
        assert_eq!(of("x-content-type-options"), "nosniff");
        assert!(of("strict-transport-security").starts_with("max-age="));
        let plain = with_headers("page".into_response(), false);
        assert!(!plain.headers().contains_key("strict-transport-security"));
    }
}
