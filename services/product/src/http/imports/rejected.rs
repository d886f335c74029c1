//! The lines that were passed over, as a file that can be mended and sent again.

use std::collections::HashMap;

use axum::body::Bytes;
use serde::Serialize;

use crate::product::import::LineError;

/// Most of it, in bytes. The answer has it once more, escaped.
const LONGEST: usize = 2 * 1024 * 1024;

/// In CSV with the file's header, and columns that say what is wrong, which an import does not read. In NDJSON the lines
/// as they were.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Rejected(String);

impl Rejected {
    /// A line that is too long, no text, or has a quote in the wrong place is left out: nobody knows where it
    /// ends.
    pub fn add(&mut self, error: &LineError, raw: &HashMap<u64, Bytes>, header: Option<&(Bytes, char)>) {
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let line = raw.get(&error.line).and_then(text).filter(|line| !line.is_empty());
        let Some(line) = line.filter(|line| self.0.len() + line.len() < LONGEST) else { return };
        let Some((names, delimiter)) = header else {
            self.0.push_str(&line);
            self.0.push('\n');
            return;
        };
        let first = self.0.is_empty();
        let mut row = |cells: [&str; 4]| {
            self.0.push_str(&cells.join(&delimiter.to_string()));
            self.0.push_str("\r\n");
        };
        if first {
            row([&text(names).unwrap_or_default(), "_line", "_code", "_detail"]);
        }
        let detail = format!("\"{}\"", error.detail.replace('"', "\"\""));
        row([&line, &error.line.to_string(), &error.code, &detail]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_come_back_are_of_two_mebibytes_at_most() {
        let raw: HashMap<u64, Bytes> = (1..=20).map(|line| (line, vec![b'x'; 200_000].into())).collect();
        let mut rejected = Rejected::default();
        for line in 1..=20 {
            rejected.add(&LineError::new(line, "malformed_json", ""), &raw, None);
        }
        assert_eq!(rejected.0.len(), 10 * 200_001);
    }
}
