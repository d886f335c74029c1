//! Cuts a stream of CSV into records (RFC 4180), of which at most one is in memory.
//!
//! A quoted cell may contain line breaks. So a quote that nobody closed would swallow the lines after it, and
//! a line of a text could be taken for a product. The quotes around decide which it is: see
//! [`Records::next`].

use bytes::{Buf, Bytes, BytesMut};

use super::lines::MAX_LINE;

/// Bytes of a file that are read a second time at most, for quotes that are not closed.
const MOST_AGAIN: usize = 64 * 1024 * 1024;

/// Why a record can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Longer than [`MAX_LINE`]; its bytes are gone.
    TooLong,
    /// A quote within quotes stands alone.
    Quote,
    /// A quote is not closed. What follows its line is read as records.
    Open,
    /// A quote is not closed, and what follows may be text or records. None of it is read.
    OpenToTheEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Start,
    Plain,
    Quoted,
}

/// Feed a chunk, take records until there is none, feed the next.
#[derive(Debug)]
pub struct Records {
    buffer: BytesMut,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    cell: Cell,
    /// The line that the record begins in, and line breaks of it that were seen.
    line: u64,
    breaks: u64,
    /// Where the last quoted cell begins: in the buffer, and in breaks.
    opened: (usize, u64),
    stray: bool,
    /// The rest of the record is to be dropped.
    dropping: bool,
    delimiter: Option<u8>,
    /// Whether the file names the delimiter before its header.
    named: bool,
    /// Cells of a record, once the header was read.
    cells: usize,
    again: usize,
    ended: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            seen: 0,
            cell: Cell::Start,
            line: 1,
            breaks: 0,
            opened: (0, 0),
            stray: false,
            dropping: false,
            delimiter: None,
            named: false,
            cells: 0,
            again: 0,
            ended: false,
        }
    }
}

impl Records {
    /// Call it when [`Self::next`] gave `None`.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The file has ended. Do not call it for a file that was cut short: half a record may look like a whole
    /// one.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What is between the cells, once the first line was read.
    pub fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(b',')
    }

    /// The line that named the delimiter, or nothing.
    pub fn prologue(&self) -> Vec<u8> {
        if self.named { [&b"sep="[..], &[self.delimiter()], b"\r\n"].concat() } else { Vec::new() }
    }

    /// Cells that each record has.
    pub fn expect(&mut self, cells: usize) {
        self.cells = cells;
    }

    /// The next record with the number of its first line, without its end.
    pub fn next(&mut self) -> Option<(u64, Result<Bytes, Broken>)> {
        if self.delimiter.is_none() {
            self.sniff()?;
        }
        let delimiter = self.delimiter();
        while let Some(&byte) = self.buffer.get(self.seen) {
            let next = self.buffer.get(self.seen + 1).copied().or(self.ended.then_some(b'\n'));
            // The next byte decides what a quote or a carriage return is.
            let (true, next) = (next.is_some() || !b"\"\r".contains(&byte), next.unwrap_or_default()) else {
                break;
            };
            match (self.cell, byte) {
                (Cell::Quoted, b'"') if next == b'"' => self.seen += 1,
                (Cell::Quoted, b'"') if next == delimiter || b"\r\n".contains(&next) => {
                    self.cell = Cell::Plain;
                }
                // It opens a cell, so the quote before it was not closed.
                (Cell::Quoted, b'"') if !self.dropping && self.follows_a_cell(delimiter) => {
                    return Some(self.reopen());
                }
                (Cell::Quoted, b'"') => self.stray = true,
                (Cell::Quoted, b'\n') => self.breaks += 1,
                (Cell::Quoted, b'\r') if next != b'\n' => self.breaks += 1,
                (Cell::Quoted, _) => {}
                (Cell::Start, b'"') => {
                    self.cell = Cell::Quoted;
                    self.opened = (self.seen, self.breaks);
                }
                (_, b'\n') => return Some(self.take(1)),
                (_, b'\r') if next == b'\n' && self.seen + 1 < self.buffer.len() => {
                    return Some(self.take(2));
                }
                (_, b'\r') => return Some(self.take(1)),
                (_, byte) if byte == delimiter => self.cell = Cell::Start,
                _ => self.cell = Cell::Plain,
            }
            self.seen += 1;
            if self.seen > MAX_LINE {
                if !self.dropping && self.cell == Cell::Quoted && self.records_follow() {
                    return Some(self.reopen());
                }
                self.dropping = true;
                self.buffer.advance(self.seen - 1);
                self.seen = 1;
            }
        }
        if !self.ended || (self.buffer.is_empty() && !self.dropping) {
            return None;
        }
        if self.cell != Cell::Quoted {
            return Some(self.take(0));
        }
        if !self.dropping && self.records_follow() {
            return Some(self.reopen());
        }
        let line = self.line;
        self.buffer.clear();
        self.start();
        Some((line, Err(Broken::OpenToTheEnd)))
    }

    /// Learns the delimiter from the first line that is not blank, when that is whole.
    fn sniff(&mut self) -> Option<()> {
        loop {
            let end = self.buffer.iter().position(|byte| b"\r\n".contains(byte));
            let whole = end.is_some() || self.ended || self.buffer.len() > MAX_LINE;
            let line = whole.then(|| &self.buffer[..end.unwrap_or(self.buffer.len())])?;
            if end.is_some_and(|end| self.buffer[end..] == *b"\r") && !self.ended {
                return None;
            }
            // As spreadsheets write it for each other.
            let named = line.to_ascii_lowercase();
            if let [b's', b'e', b'p', b'=', delimiter] = *named {
                (self.delimiter, self.named) = (Some(delimiter), true);
            } else if !line.trim_ascii().is_empty() || end.is_none() {
                self.delimiter = Some(most_frequent(line));
                return Some(());
            }
            let end = end.unwrap_or(self.buffer.len());
            let crlf = self.buffer.get(end..end + 2) == Some(b"\r\n");
            self.buffer.advance((end + if crlf { 2 } else { 1 }).min(self.buffer.len()));
            self.line += 1;
            if self.delimiter.is_some() {
                return Some(());
            }
        }
    }

    /// The record up to what was scanned; its end of this many bytes follows.
    fn take(&mut self, end: usize) -> (u64, Result<Bytes, Broken>) {
        let record = self.buffer.split_to(self.seen).freeze();
        self.buffer.advance(end);
        let read = match (self.dropping, self.stray) {
            (true, _) => Err(Broken::TooLong),
            (_, true) => Err(Broken::Quote),
            _ => Ok(record),
        };
        let line = self.line;
        self.line += self.breaks + 1;
        self.start();
        (line, read)
    }

    /// Goes on after the line of the quote that is open.
    fn reopen(&mut self) -> (u64, Result<Bytes, Broken>) {
        let (line, (at, breaks)) = (self.line, self.opened);
        let rest = next_line(&self.buffer, at);
        self.again += self.seen.saturating_sub(rest);
        if self.again > MOST_AGAIN {
            self.buffer.clear();
            self.ended = true;
            self.start();
            return (line, Err(Broken::OpenToTheEnd));
        }
        self.buffer.advance(rest);
        self.line += breaks + 1;
        self.start();
        (line, Err(Broken::Open))
    }

    fn start(&mut self) {
        (self.seen, self.cell, self.breaks) = (0, Cell::Start, 0);
        (self.stray, self.dropping) = (false, false);
    }

    fn follows_a_cell(&self, delimiter: u8) -> bool {
        let before = self.seen.checked_sub(1).and_then(|at| self.buffer.get(at));
        before.is_some_and(|before| *before == delimiter || b"\r\n".contains(before))
    }

    /// Whether at least nine in ten of the lines after that of the open quote are records: those of a text
    /// are not.
    fn records_follow(&self) -> bool {
        let (mut at, mut lines, mut fit) = (next_line(&self.buffer, self.opened.0), 0_u32, 0_u32);
        while at < self.buffer.len() {
            let end = next_line(&self.buffer, at);
            let line = self.buffer[at..end].trim_ascii();
            // The last one may be incomplete.
            if !line.is_empty() && (self.ended || end < self.buffer.len()) {
                lines += 1;
                fit += u32::from(cells(line, self.delimiter()) == Some(self.cells));
            }
            at = end;
        }
        lines > 0 && fit * 10 >= lines * 9
    }
}

/// Where the line after the one at this place begins.
fn next_line(text: &[u8], at: usize) -> usize {
    let end = text[at..].iter().position(|byte| b"\r\n".contains(byte));
    match end.map(|end| at + end) {
        Some(end) if text[end..].starts_with(b"\r\n") => end + 2,
        Some(end) => end + 1,
        None => text.len(),
    }
}

/// The cells of a line; `None` when a quote stays open.
fn cells(line: &[u8], delimiter: u8) -> Option<usize> {
    let (mut quoted, mut cells) = (false, 1);
    for byte in line {
        quoted ^= *byte == b'"';
        cells += usize::from(!quoted && *byte == delimiter);
    }
    (!quoted).then_some(cells)
}

fn most_frequent(line: &[u8]) -> u8 {
    let by_count = |delimiter: &u8| cells(line, *delimiter).unwrap_or(0);
    // Of those that are as frequent, the last.
    b"\t;,".iter().copied().max_by_key(by_count).unwrap_or(b',')
}

#[cfg(test)]
mod tests;
