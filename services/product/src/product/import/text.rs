//! Converts a file to UTF-8; it may be UTF-16 if it says so.

use bytes::{Bytes, BytesMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// Feed it a file's chunks in their order.
#[derive(Debug)]
pub struct Decoder {
    /// Of a file without a byte order mark.
    otherwise: Encoding,
    /// Once the file's first bytes were seen.
    encoding: Option<Encoding>,
    /// Bytes that decide nothing yet: a part of a mark, or half of a UTF-16 unit.
    begun: BytesMut,
    /// The first half of a character that UTF-16 writes as two units.
    high: Option<u16>,
}

/// No byte of UTF-8: it stands for half a character, so that its line is refused.
const BAD: u8 = 0xFF;

impl Decoder {
    pub fn new(otherwise: Encoding) -> Self {
        Self { otherwise, encoding: None, begun: BytesMut::new(), high: None }
    }

    pub fn feed(&mut self, mut chunk: Bytes) -> Bytes {
        let encoding = match self.encoding {
            Some(encoding) => encoding,
            None => {
                self.begun.extend_from_slice(&chunk);
                if self.begun.len() < 3 {
                    return Bytes::new();
                }
                chunk = self.begun.split().freeze();
                self.begin(&mut chunk)
            }
        };
        self.decode(encoding, chunk)
    }

    /// What is left of a file that has ended.
    pub fn end(&mut self) -> Bytes {
        let mut rest = BytesMut::new();
        if self.encoding.is_none() {
            let mut chunk = self.begun.split().freeze();
            let encoding = self.begin(&mut chunk);
            rest.extend_from_slice(&self.decode(encoding, chunk));
        }
        if self.high.take().is_some() || !self.begun.is_empty() {
            rest.extend_from_slice(&[BAD]);
        }
        rest.freeze()
    }

    /// Reads the mark, and takes it away.
    fn begin(&mut self, chunk: &mut Bytes) -> Encoding {
        let marks: [(&[u8], Encoding); 3] = [
            (b"\xEF\xBB\xBF", Encoding::Utf8),
            (b"\xFF\xFE", Encoding::Utf16Le),
            (b"\xFE\xFF", Encoding::Utf16Be),
        ];
        let mark = marks.into_iter().find(|(mark, _)| chunk.starts_with(mark));
        let (mark, encoding) = mark.unwrap_or((b"", self.otherwise));
        let _ = chunk.split_to(mark.len());
        self.encoding = Some(encoding);
        encoding
    }

    fn decode(&mut self, encoding: Encoding, chunk: Bytes) -> Bytes {
        let unit = match encoding {
            Encoding::Utf8 => return chunk,
            Encoding::Utf16Le => u16::from_le_bytes,
            Encoding::Utf16Be => u16::from_be_bytes,
        };
        self.begun.extend_from_slice(&chunk);
        let whole = self.begun.split_to(self.begun.len() / 2 * 2);
        let units = whole.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let mut text = BytesMut::with_capacity(whole.len() * 3 / 2);
        // The last one waits for its other half, which the next chunk may have.
        let mut units: Vec<u16> = self.high.take().into_iter().chain(units).collect();
        self.high = units.pop_if(|unit| (0xD800..0xDC00).contains(unit));
        for character in char::decode_utf16(units) {
            match character {
                Ok(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                Err(_) => text.extend_from_slice(&[BAD]),
            }
        }
        text.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(otherwise: Encoding, file: &[u8], chunk: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(otherwise);
        let mut text = Vec::new();
        for chunk in file.chunks(chunk) {
            text.extend_from_slice(&decoder.feed(Bytes::copy_from_slice(chunk)));
        }
        text.extend_from_slice(&decoder.end());
        text
    }

    #[test]
    fn a_file_reads_the_same_in_each_encoding_wherever_its_chunks_end() {
        let text = "sku,Größe\r\n無線,\u{1f6a2}\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for chunk in [1, 2, 3, 5, 1000] {
            for (mark, bytes, encoding) in [
                (&b"\xEF\xBB\xBF"[..], text.as_bytes(), Encoding::Utf8),
                (b"\xFF\xFE", &little, Encoding::Utf16Le),
                (b"\xFE\xFF", &big, Encoding::Utf16Be),
            ] {
                let marked = [mark, bytes].concat();
                assert_eq!(decoded(Encoding::Utf8, &marked, chunk), text.as_bytes(), "{encoding:?}, {chunk}");
                assert_eq!(decoded(encoding, bytes, chunk), text.as_bytes(), "{encoding:?}, {chunk}");
            }
        }
        assert_eq!(decoded(Encoding::Utf8, b"", 1), b"");
        assert_eq!(decoded(Encoding::Utf8, b"a", 1), b"a");
    }

    #[test]
    fn half_a_character_is_no_utf_8() {
        for bad in [
            &b"\xFF\xFEa\0\x3D\xD8b\0"[..],
            b"\xFF\xFEa\0\xA2\xDEb\0",
            b"\xFF\xFEa\0\x3D\xD8",
            b"\xFF\xFEa\0b",
        ] {
            for chunk in [1, 100] {
                assert!(std::str::from_utf8(&decoded(Encoding::Utf8, bad, chunk)).is_err(), "{bad:?}");
            }
        }
    }
}
