//! The name of a signed-in program, as its owner would call it. The header itself says more, and is not kept.

use axum::http::HeaderValue;

/// In this order: the ones below come in the headers of those above too.
const BROWSERS: [(&str, &str); 6] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
];

const SYSTEMS: [(&str, &str); 8] = [
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
];

const MOST_CHARACTERS: usize = 40;

/// `Firefox on Linux`, or a program's own name; `None` when the header says
/// nothing of the kind.
pub(crate) fn describe(header: &HeaderValue) -> Option<String> {
    let text = header.to_str().ok()?;
    let known = |names: &[(&str, &'static str)]| {
        names.iter().find(|(sign, _)| text.contains(sign)).map(|(_, name)| *name)
    };
    let browser = match known(&BROWSERS) {
        Some(browser) => browser.to_owned(),
        None => {
            let name = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
            text.chars().take_while(name).take(MOST_CHARACTERS).collect()
        }
    };
    match known(&SYSTEMS) {
        _ if browser.is_empty() => None,
        Some(system) => Some(format!("{browser} on {system}")),
        None => Some(browser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_and_programs_are_recognised() {
        let described = |text: &'static str| describe(&HeaderValue::from_static(text));
        for (header, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iOS",
            ),
            (
                "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.5.0", "curl"),
        ] {
            assert_eq!(described(header).as_deref(), Some(name));
        }
        assert_eq!(described(""), None);
        assert_eq!(described("<script>"), None);
        assert_eq!(describe(&HeaderValue::from_bytes(b"\xff").unwrap()), None);
        assert_eq!(describe(&HeaderValue::from_str(&"x".repeat(5000)).unwrap()).unwrap().len(), 40);
    }
}
