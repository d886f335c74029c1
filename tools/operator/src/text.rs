//! Aligned text for people.

use operator::dlq::DeadLetter;
use operator::outbox::Status;
use operator::reconcile::{Difference, Remedy, Report};
use operator::saga::Saga;
use operator::trace::{Moment, Trace};

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

pub fn dead_letters(all: &[DeadLetter]) -> String {
    let row = |of: &DeadLetter| {
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

/// Dead letters with their bodies.
pub fn whole(all: &[DeadLetter]) -> String {
    let one = |dead_letter: &DeadLetter| {
        let body = dead_letter.body.clone().unwrap_or_else(|| format!("(hex) {}", dead_letter.body_hex));
        format!("{}{body}\n\n", dead_letters(std::slice::from_ref(dead_letter)))
    };
    all.iter().map(one).collect()
}

/// A line of text for each moment, with a bar that shows when it was and how long it took.
pub fn trace(of: &Trace) -> String {
    let order = &of.order;
    let mut text = format!(
        "order {}: {}, payment {}, saga {}",
        order.order_id, order.status, order.payment, order.phase
    );
    if let Some(next) = order.next_seconds {
        text.push_str(&format!(
            ", next call {} ({} in vain)",
            if next > 0.0 { format!("in {}", age(next)) } else { "due".to_owned() },
            order.attempts
        ));
    }
    text.push('\n');
    if let Some(id) = &order.trace_id {
        text.push_str(&format!("trace {id}\n"));
    }
    let first = of.moments.iter().map(|moment| moment.offset_seconds).fold(0.0, f64::min);
    let end = |moment: &Moment| moment.offset_seconds + moment.took_seconds.unwrap_or(0.0);
    let span = of.moments.iter().map(end).fold(0.0, f64::max) - first;
    let row = |moment: &Moment| {
        [
            format!("{:+.3} s", moment.offset_seconds),
            moment.took_seconds.map_or_else(|| "-".to_owned(), |took| format!("{took:.3} s")),
            bar(moment.offset_seconds - first, end(moment) - first, span),
            moment.service.clone(),
            moment.kind.clone(),
            moment.what.clone(),
        ]
    };
    let head = ["AT", "TOOK", "", "SERVICE", "KIND", "WHAT"];
    text.push_str(&format!("\n{}", table(head, &of.moments.iter().map(row).collect::<Vec<_>>())));
    text
}

/// Columns of a bar.
const WIDTH: usize = 30;

fn bar(from: f64, to: f64, span: f64) -> String {
    let column = |at: f64| if span > 0.0 { (at / span * WIDTH as f64) as usize } else { 0 };
    let first = column(from).min(WIDTH - 1);
    let last = column(to).clamp(first + 1, WIDTH);
    format!("|{}{}{}|", " ".repeat(first), "#".repeat(last - first), " ".repeat(WIDTH - last))
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
    fn a_bar_is_where_its_time_is() {
        let bars = [(0.0, 0.0, 0.0), (0.0, 3.0, 3.0), (1.0, 2.0, 3.0), (3.0, 3.0, 3.0)];
        let bars = bars.map(|(from, to, span)| bar(from, to, span));
        assert_eq!(
            bars,
            [
                format!("|#{}|", " ".repeat(29)),
                format!("|{}|", "#".repeat(30)),
                format!("|{0}{1}{0}|", " ".repeat(10), "#".repeat(10)),
                format!("|{}#|", " ".repeat(29)),
            ]
        );
    }

    #[test]
    fn ages_have_two_units() {
        assert_eq!([5.9, 90.0, 3_700.0, 90_000.0].map(age), ["5s", "1m30s", "1h01m", "1d01h"]);
    }
}
