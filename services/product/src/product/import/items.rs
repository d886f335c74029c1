//! A feed of products in XML, RSS 2.0 or Atom: cut into its items, holding one at most.

use bytes::{Buf, Bytes, BytesMut};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::lines::{MAX_LINE, TooLong};

/// Feed a chunk, take items until there is none, feed the next.
#[derive(Debug)]
pub struct Items {
    buffer: BytesMut,
    /// The line that the buffer begins in.
    line: u64,
    /// The end that the item has whose beginning is the buffer's, and bytes of the buffer that do not hold it.
    open: Option<(&'static [u8], usize)>,
    /// The rest of the item is to be dropped.
    dropping: bool,
}

impl Default for Items {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), line: 1, open: None, dropping: false }
    }
}

impl Items {
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole item with the line that it begins in.
    pub fn next(&mut self) -> Option<(u64, Result<Bytes, TooLong>)> {
        let (end, seen) = match self.open {
            Some(open) => open,
            None => {
                let Some((at, end)) = beginning(&self.buffer) else {
                    // What may be the first bytes of a tag stays.
                    self.skip(self.buffer.len().saturating_sub(b"<entry>".len()));
                    return None;
                };
                self.skip(at);
                self.open = Some((end, 0));
                (end, 0)
            }
        };
        if let Some(at) = find(&self.buffer[seen..], end) {
            let line = self.line;
            let item = self.buffer[..seen + at + end.len()].to_vec();
            self.skip(item.len());
            self.open = None;
            let too_long = std::mem::take(&mut self.dropping) || item.len() > MAX_LINE;
            return Some((line, if too_long { Err(TooLong) } else { Ok(item.into()) }));
        }
        let mut seen = self.buffer.len().saturating_sub(end.len());
        if self.buffer.len() > MAX_LINE {
            self.dropping = true;
            self.skip(seen);
            seen = 0;
        }
        self.open = Some((end, seen));
        None
    }

    /// The line of an item that the end of the file cuts off.
    pub fn cut_off(&self) -> Option<u64> {
        self.open.map(|_| self.line)
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.buffer[..bytes].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.buffer.advance(bytes);
    }
}

/// Where an item begins, and how it ends.
fn beginning(text: &[u8]) -> Option<(usize, &'static [u8])> {
    let tags: [(&[u8], &[u8]); 2] = [(b"<item", b"</item>"), (b"<entry", b"</entry>")];
    let begins = |(tag, end): (&'static [u8], &'static [u8])| {
        let mut from = 0;
        while let Some(at) = find(&text[from..], tag).map(|at| from + at) {
            if text.get(at + tag.len()).is_some_and(|next| b"> \t\r\n".contains(next)) {
                return Some((at, end));
            }
            from = at + tag.len();
        }
        None
    };
    tags.into_iter().filter_map(begins).min_by_key(|(at, _)| *at)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// An item's elements by their names without a prefix. Of two with one name Google's (`g:`) counts, else the first;
/// addresses of more images are put together. `None` when it is no XML.
pub fn fields(item: &str) -> Option<Vec<(String, String)>> {
    let mut reader = Reader::from_str(item);
    let (mut fields, mut depth): (Vec<(String, String)>, _) = (Vec::new(), 0_usize);
    let (mut name, mut text) = (String::new(), String::new());
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                depth += 1;
                if depth == 2 {
                    name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
                    text.clear();
                }
            }
            Event::Empty(element) if depth == 1 => {
                if let Some(link) = element.try_get_attribute("href").ok()? {
                    let name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
                    add(&mut fields, &name, &String::from_utf8_lossy(&link.value));
                }
            }
            Event::Text(part) => text.push_str(&part.decode().ok()?),
            Event::CData(part) => text.push_str(&part.decode().ok()?),
            Event::GeneralRef(part) => match part.resolve_char_ref().ok()? {
                Some(character) => text.push(character),
                None => text.push(match part.decode().ok()?.as_ref() {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return None,
                }),
            },
            Event::End(_) => {
                if depth == 2 {
                    add(&mut fields, &name, text.trim());
                }
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(fields);
                }
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn add(fields: &mut Vec<(String, String)>, name: &str, value: &str) {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    match fields.iter_mut().find(|(other, _)| other == local) {
        Some((_, known)) if local == "additional_image_link" => {
            known.push(' ');
            known.push_str(value);
        }
        Some((_, known)) if prefix == "g" => value.clone_into(known),
        Some(_) => {}
        None => fields.push((local.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_comes_apart_the_same_wherever_its_chunks_end() {
        let file = "<?xml version=\"1.0\"?>\n<rss><channel>\n<items>1</items><item>\n<g:id>A</g:id></item>\n\
                    <entry xmlns=\"x\"><id>B</id></entry>\n</channel></rss><item>";
        for chunk in 1..file.len() {
            let (mut items, mut all) = (Items::default(), Vec::new());
            for chunk in file.as_bytes().chunks(chunk) {
                items.feed(chunk);
                while let Some((line, item)) = items.next() {
                    all.push((line, String::from_utf8(item.unwrap().to_vec()).unwrap()));
                }
            }
            let wanted = [
                (3, "<item>\n<g:id>A</g:id></item>".to_owned()),
                (5, "<entry xmlns=\"x\"><id>B</id></entry>".to_owned()),
            ];
            assert_eq!((all.as_slice(), items.cut_off()), (&wanted[..], Some(6)), "{chunk}");
        }
    }

    #[test]
    fn an_item_that_is_too_long_is_dropped_and_the_next_one_is_whole() {
        let long = format!("<item>{}</item><item>x</item>", "y".repeat(MAX_LINE));
        for chunk in [1000, 1 << 20] {
            let (mut items, mut all) = (Items::default(), Vec::new());
            for chunk in long.as_bytes().chunks(chunk) {
                items.feed(chunk);
                all.extend(std::iter::from_fn(|| items.next()).map(|(_, item)| item.map(|item| item.len())));
            }
            assert_eq!(all, [Err(TooLong), Ok(14)]);
        }
    }

    #[test]
    fn an_items_elements_are_read_by_their_names() {
        let item = "<entry><title>A &amp; &#66;</title><id>tag:x</id><g:id>A-1</g:id><link href=\"https://a.example/\"/>\
                    <description><![CDATA[<b>x</b>]]></description><g:shipping><g:country>DE</g:country></g:shipping>\
                    <g:additional_image_link>u1</g:additional_image_link>\
                    <g:additional_image_link>u2</g:additional_image_link></entry>";
        let wanted = [
            ("title", "A & B"),
            ("id", "A-1"),
            ("link", "https://a.example/"),
            ("description", "<b>x</b>"),
            ("shipping", "DE"),
            ("additional_image_link", "u1 u2"),
        ];
        let fields = fields(item).unwrap();
        let read: Vec<(&str, &str)> =
            fields.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(read, wanted);
        for bad in ["<item><a></item>", "<item>", "<item>&x;</item>", "x"] {
            assert_eq!(super::fields(bad), None, "{bad}");
        }
    }
}
