//! Aligned text for people.

use operator::dlq::Letter;
use operator::outbox::Status;
use operator::reconcile::{Difference, Remedy, Report};
use operator::saga::Saga;

/// `text`, or what is said when there is none.
pub fn or(text: String, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text }
}

pub fn outboxes(all: &[Status]) -> String {
    let row = |of: &Status| {
        let (backlog, claimed) = (of.backlog.to_string(), of.claimed.to_string());
        let paused: Vec<_> = of.paused.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        [
            of.service.to_owned(),
            backlog,
            age(of.oldest_seconds),
            claimed,
            of.published_last_minute.to_string(),
            or(paused.join(", "), "-"),
        ]
    };
    let head = ["SERVICE", "BACKLOG", "OLDEST", "CLAIMED", "PUBLISHED/MIN", "PAUSED"];
    table(head, &all.iter().map(row).collect::<Vec<_>>())
}

pub fn sagas(all: &[Saga]) -> String {
    let row = |of: &Saga| {
        let due = match of.due_seconds {
            due if due < 0.0 => format!("in {}", age(-due)),
            due => format!("for {}", age(due)),
        };
        [
            of.order_id.to_string(),
            of.status.clone(),
            of.phase.clone(),
            of.payment.clone(),
            of.attempts.to_string(),
            due,
            age(of.lease_seconds),
            age(of.age_seconds),
        ]
    };
    let head = ["ORDER", "STATUS", "PHASE", "PAYMENT", "ATTEMPTS", "DUE", "LEASE", "AGE"];
    table(head, &all.iter().map(row).collect::<Vec<_>>())
}

pub fn letters(all: &[Letter]) -> String {
    let row = |of: &Letter| {
        [
            of.service.to_owned(),
            of.id.clone(),
            of.kind.clone().unwrap_or_else(|| "-".to_owned()),
            of.aggregate_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            of.attempts.to_string(),
            of.age_seconds.map_or_else(|| "-".to_owned(), |seconds| age(seconds as f64)),
            of.error.clone(),
        ]
    };
    let head = ["SERVICE", "ID", "TYPE", "AGGREGATE", "ATTEMPTS", "AGE", "ERROR"];
    table(head, &all.iter().map(row).collect::<Vec<_>>())
}

/// Letters with their bodies.
pub fn whole(all: &[Letter]) -> String {
    let one = |letter: &Letter| {
        let body = letter.body.clone().unwrap_or_else(|| format!("(hex) {}", letter.body_hex));
        format!("{}{body}\n\n", letters(std::slice::from_ref(letter)))
    };
    all.iter().map(one).collect()
}

/// `left`: what mending left.
pub fn report(report: &Report, left: Option<&[Difference]>) -> String {
    let mut text = format!(
        "Compared {} orders, {} payments, {} products and {} events; {} orders are on their way.\n",
        report.orders,
        report.payments,
        report.products,
        report.events,
        report.in_flight.len()
    );
    for difference in &report.differences {
        let about = format!("{:?}", difference.about).to_lowercase();
        text.push_str(&format!("\n{about} {}: {}\n", difference.id, difference.what));
        let does = match (left, &difference.remedy) {
            (_, Remedy::Nothing { .. }) => "can't be mended here:",
            (None, _) => "--mend would",
            (Some(left), _) if left.contains(difference) => "still so, after this:",
            (Some(_), _) => "mended:",
        };
        text.push_str(&format!("  {does} {}\n", difference.remedy));
    }
    let (all, left) = (report.differences.len(), left.map_or(report.differences.len(), <[_]>::len));
    text.push_str(&match (left, all) {
        (_, 0) => "All agrees.\n".to_owned(),
        (0, all) => format!("\n{all} differences, all mended.\n"),
        (left, all) => format!("\n{all} differences, {left} left.\n"),
    });
    text
}

/// Columns as wide as their widest cell, the last one as it is; nothing for no rows.
fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut text = String::new();
    if rows.is_empty() {
        return text;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in [&head.map(str::to_owned)].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `90` -> `1m30s`.
fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = [["a".to_owned(), "long one".to_owned()], ["bbbb".to_owned(), String::new()]];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     long one\nbbbb\n");
        assert_eq!(table(["X"], &[]), "");
    }

    #[test]
    fn ages_are_told_in_two_units() {
        assert_eq!([5.9, 90.0, 3_700.0, 90_000.0].map(age), ["5s", "1m30s", "1h01m", "1d01h"]);
    }
}
