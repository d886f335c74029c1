//! Prometheus's text as OpenMetrics, which its crate does not write. Without exemplars: neither the exporter nor the SDK
//! has them.
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header asks for it. Prometheus names what it likes best first, and OpenMetrics only when it
/// takes it.
pub(super) fn is_wanted(accept: &str) -> bool {
    let mut kinds = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    kinds.any(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
}

pub(super) fn from_text(text: &str) -> String {
    // A counter's family is named without the suffix of its samples; so is what has no type but information.
    let families: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter_map(|(name, kind)| match (kind, name) {
            ("counter", _) => Some((name, name.strip_suffix("_total")?)),
            (_, "target_info") => Some((name, "target")),
            _ => None,
        })
        .collect();
    let renamed = |name| families.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| *new);
    let mut out = String::with_capacity(text.len() + text.len() / 50);
    for line in text.lines() {
        let words = line.strip_prefix("# ").and_then(|rest| {
            let (what, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((what, name, rest))
        });
        match words {
            Some(("TYPE", "target_info", _)) => out.push_str("# TYPE target info"),
            Some((what, name, rest)) => {
                // In OpenMetrics a quotation mark in a help text is escaped too.
                let rest = if what == "HELP" { rest.replace('"', "\\\"") } else { rest.to_owned() };
                out.push_str(&format!("# {what} {} {rest}", renamed(name)));
            }
            None => out.push_str(&with_float_bound(line)),
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// A bucket's bound is written as a float: `le="1.0"`.
fn with_float_bound(line: &str) -> String {
    let Some((before, rest)) = line.split_once("le=\"") else { return line.to_owned() };
    let Some((bound, after)) = rest.split_once('"') else { return line.to_owned() };
    let whole = !bound.is_empty() && bound.bytes().all(|byte| byte.is_ascii_digit());
    let is_bound = before.contains("_bucket{") && (before.ends_with('{') || before.ends_with(','));
    if whole && is_bound { format!("{before}le=\"{bound}.0\"{after}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_to_who_asks_for_it() {
        assert!(is_wanted("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"));
        assert!(is_wanted("text/plain, application/openmetrics-text"));
        assert!(!is_wanted("text/plain;version=0.0.4"));
        assert!(!is_wanted("*/*"));
    }

    #[test]
    fn families_are_named_and_ended_as_openmetrics_has_it() {
        let text = "# HELP a_total What is \"counted\".\n# TYPE a_total counter\na_total{kind=\"x\"} 3\n\
                    # HELP b_seconds How long.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.5\"} 1\n\
                    b_seconds_bucket{route=\"/x\",le=\"10\"} 1\nb_seconds_bucket{le=\"+Inf\"} 1\n\
                    # HELP target_info Target metadata\n# TYPE target_info gauge\ntarget_info{service_name=\"s\"} 1\n";
        let expected = "# HELP a What is \\\"counted\\\".\n# TYPE a counter\na_total{kind=\"x\"} 3\n\
                        # HELP b_seconds How long.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.5\"} 1\n\
                        b_seconds_bucket{route=\"/x\",le=\"10.0\"} 1\nb_seconds_bucket{le=\"+Inf\"} 1\n\
                        # HELP target Target metadata\n# TYPE target info\ntarget_info{service_name=\"s\"} 1\n# EOF\n";
        assert_eq!(from_text(text), expected);
    }
}
