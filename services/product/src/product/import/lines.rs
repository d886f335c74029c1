//! Cuts a stream of bytes into lines, of which at most one is in memory.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line, in bytes: about what a product at every limit takes as JSON
/// with each character escaped.
pub const MAX_LINE: usize = 256 * 1024;

/// The line is longer than [`MAX_LINE`]; its bytes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Feed a chunk, take lines until there is none, feed the next.
#[derive(Debug, Default)]
pub struct Lines {
    chunk: Bytes,
    /// The line whose end has not come yet.
    begun: BytesMut,
    /// The rest of the line is to be dropped.
    too_long: bool,
    number: u64,
}

impl Lines {
    /// Call it when [`Self::next`] gave `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "lines are left");
        self.chunk = chunk;
    }

    /// The next whole line with its number, without its end.
    pub fn next(&mut self) -> Option<(u64, Result<Bytes, TooLong>)> {
        let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') else {
            let rest = std::mem::take(&mut self.chunk);
            self.begin(&rest);
            return None;
        };
        let rest = self.chunk.split_to(end);
        self.chunk.advance(1);
        Some(self.line(rest))
    }

    /// The last line, if the file does not end with a line break. Do not call it for a file that was cut
    /// short: half a line may look like a whole one.
    pub fn last(&mut self) -> Option<(u64, Result<Bytes, TooLong>)> {
        (self.too_long || !self.begun.is_empty()).then(|| self.line(Bytes::new()))
    }

    fn begin(&mut self, part: &[u8]) {
        if self.too_long || self.begun.len() + part.len() > MAX_LINE {
            self.too_long = true;
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn line(&mut self, rest: Bytes) -> (u64, Result<Bytes, TooLong>) {
        self.number += 1;
        let mut line = if self.begun.is_empty() && !self.too_long && rest.len() <= MAX_LINE {
            rest
        } else {
            self.begin(&rest);
            self.begun.split().freeze()
        };
        if std::mem::take(&mut self.too_long) {
            return (self.number, Err(TooLong));
        }
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        (self.number, Ok(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(u64, Result<String, TooLong>)> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(Bytes::copy_from_slice(chunk));
            while let Some(line) = lines.next() {
                all.push(line);
            }
        }
        all.extend(lines.last());
        let text = |line: Bytes| String::from_utf8(line.to_vec()).unwrap();
        all.into_iter().map(|(number, line)| (number, line.map(text))).collect()
    }

    #[test]
    fn lines_come_out_the_same_wherever_the_chunks_end() {
        let file = "one\r\ntwo\n\n\u{1f6a2}four".as_bytes();
        let whole: Vec<_> = [(1, "one"), (2, "two"), (3, ""), (4, "\u{1f6a2}four")]
            .map(|(number, text)| (number, Ok(text.to_owned())))
            .into();
        assert_eq!(cut(&[file]), whole);
        for at in 0..file.len() {
            assert_eq!(cut(&[&file[..at], &file[at..]]), whole, "{at}");
        }
        assert_eq!(cut(&file.chunks(1).collect::<Vec<_>>()), whole);
        assert_eq!(cut(&[]), []);
        assert_eq!(cut(&[b"a\n"]), [(1, Ok("a".to_owned()))]);
    }

    #[test]
    fn a_line_that_is_too_long_is_one_error_and_the_next_one_is_whole() {
        let long = vec![b'x'; MAX_LINE + 1];
        let tail: &[u8] = b"\nnext";
        let wanted = [(1, Err(TooLong)), (2, Ok("next".to_owned()))];
        assert_eq!(cut(&[&long, tail]), wanted);
        assert_eq!(cut(&[&[&long, tail].concat()]), wanted);
        assert_eq!(cut(&[&long[..9], &long, &long, tail]), wanted);
        assert_eq!(cut(&[&long]), [(1, Err(TooLong))]);
        let longest = cut(&[&long[1..], b"\n"]);
        assert_eq!((longest.len(), longest[0].1.as_ref().unwrap().len()), (1, MAX_LINE));
    }
}
