//! A feed of products in XML, RSS 2.0 or Atom: cut into its items, of which at most one is in memory.

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
    /// Bytes of the buffer that were scanned.
    seen: usize,
    /// The end of the comment or CDATA section that is open there.
    section: Option<&'static [u8]>,
    /// The end of the item whose beginning is the buffer's, and the line that it begins in.
    open: Option<(&'static [u8], u64)>,
    /// The rest of the item is to be dropped.
    dropping: bool,
}

impl Default for Items {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), line: 1, seen: 0, section: None, open: None, dropping: false }
    }
}

impl Items {
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole item with the line that it begins in.
    pub fn next(&mut self) -> Option<(u64, Result<Bytes, TooLong>)> {
        loop {
            let rest = &self.buffer[self.seen..];
            if let Some(end) = self.section {
                let Some(at) = find(rest, end) else {
                    // What may be the first bytes of the end stays in the buffer.
                    self.seen += rest.len().saturating_sub(end.len() - 1);
                    break;
                };
                self.seen += at + end.len();
                self.section = None;
                continue;
            }
            let Some(at) = rest.iter().position(|byte| *byte == b'<') else {
                self.seen = self.buffer.len();
                break;
            };
            self.seen += at;
            match tag(&rest[at..], self.open.map(|(end, _)| end)) {
                Tag::Item(end) => {
                    self.skip();
                    self.open = Some((end, self.line));
                    self.seen = 1;
                }
                Tag::End(length) => {
                    self.seen += length;
                    let line = self.open.take().map_or(self.line, |(_, line)| line);
                    let too_long = std::mem::take(&mut self.dropping) || self.seen > MAX_LINE;
                    let item =
                        if too_long { Err(TooLong) } else { Ok(self.buffer[..self.seen].to_vec().into()) };
                    self.skip();
                    return Some((line, item));
                }
                Tag::Section(length, end) => {
                    self.seen += length;
                    self.section = Some(end);
                }
                Tag::Other => self.seen += 1,
                Tag::Part => break,
            }
        }
        let too_long = self.buffer.len() > MAX_LINE;
        self.dropping |= self.open.is_some() && too_long;
        if self.open.is_none() || self.dropping {
            self.skip();
        }
        None
    }

    /// The line of an item that the end of the file cuts off.
    pub fn cut_off(&self) -> Option<u64> {
        self.open.map(|(_, line)| line)
    }

    /// Drops the bytes that were scanned.
    fn skip(&mut self) {
        self.line += self.buffer[..self.seen].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.buffer.advance(self.seen);
        self.seen = 0;
    }
}

/// Comments and CDATA sections: nothing in them is a tag.
const SECTIONS: [(&[u8], &[u8]); 2] = [(b"<!--", b"-->"), (b"<![CDATA[", b"]]>")];
const ITEMS: [(&[u8], &[u8]); 2] = [(b"<item", b"</item>"), (b"<entry", b"</entry>")];

enum Tag {
    /// An item begins, which ends like this.
    Item(&'static [u8]),
    /// The item ends with this many bytes.
    End(usize),
    /// A section begins with this many bytes, and ends like this.
    Section(usize, &'static [u8]),
    Other,
    /// There are too few bytes to decide.
    Part,
}

/// What begins here. `open` is the end of the item that it is in.
fn tag(text: &[u8], open: Option<&'static [u8]>) -> Tag {
    for (begin, end) in SECTIONS {
        if text.starts_with(begin) {
            return Tag::Section(begin.len(), end);
        }
    }
    if let Some(end) = open.filter(|end| text.starts_with(end)) {
        return Tag::End(end.len());
    }
    for (begin, end) in ITEMS {
        if open.is_none()
            && text.starts_with(begin)
            && let Some(next) = text.get(begin.len())
        {
            return if b"> \t\r\n".contains(next) { Tag::Item(end) } else { Tag::Other };
        }
    }
    let is_part = |(begin, end): &(&[u8], &[u8])| begin.starts_with(text) || end.starts_with(text);
    if SECTIONS.iter().chain(&ITEMS).any(is_part) { Tag::Part } else { Tag::Other }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Most elements of an item that are read: each is looked up among those before it.
const MOST: usize = 1000;

/// An item's elements by their names without a prefix. Of two with one name Google's (`g:`) counts, else the first;
/// addresses of more images are put together. Those behind the thousandth are not read. `None` when it is no XML.
pub fn fields(item: &str) -> Option<Vec<(String, String)>> {
    let mut reader = Reader::from_str(item);
    let (mut fields, mut depth, mut count): (Vec<(String, String)>, _, _) = (Vec::new(), 0_usize, 0_usize);
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
            Event::Empty(element) if depth == 1 && count < MOST => {
                count += 1;
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
                if depth == 2 && count < MOST {
                    count += 1;
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
    fn comments_and_cdata_hold_no_tags() {
        let item = "<item><!-- </item> --><d><![CDATA[a </item> <![CDATA[ b]]></d></item>";
        let file = format!(
            "<rss><!-- <item><id>OLD</id></item>\n - -- > --><d><![CDATA[<item>]]></d>\n{item}<!--><item></item>"
        );
        for chunk in 1..file.len() {
            let (mut items, mut all) = (Items::default(), Vec::new());
            for chunk in file.as_bytes().chunks(chunk) {
                items.feed(chunk);
                all.extend(std::iter::from_fn(|| items.next()));
            }
            assert_eq!(all, [(3, Ok(Bytes::from(item.to_owned())))], "{chunk}");
            assert_eq!(items.cut_off(), None);
        }
    }

    #[test]
    fn an_item_is_known_by_the_line_that_it_begins_in_however_long() {
        let long = format!("\n<item>{}</item>\n<item>x</item>", "y\n".repeat(MAX_LINE));
        let last = 2 + MAX_LINE as u64 + 1;
        for chunk in [1000, 1 << 20] {
            let (mut items, mut lines) = (Items::default(), Vec::new());
            for chunk in long.as_bytes().chunks(chunk) {
                items.feed(chunk);
                assert!(items.cut_off().is_none_or(|line| line == 2 || line == last));
                lines.extend(std::iter::from_fn(|| items.next()).map(|(line, _)| line));
            }
            assert_eq!(lines, [2, last]);
        }
    }

    #[test]
    fn the_buffer_is_scanned_once() {
        let mut items = Items::default();
        items.feed(b"<rss><item><a>");
        for _ in 0..20_000 {
            items.feed(b"x ");
            assert_eq!(items.next(), None);
            assert_eq!(items.seen, items.buffer.len());
        }
        // A tag that only one of the two kinds has is not searched for in all that follows.
        items.feed("</item>".repeat(2).as_bytes());
        items.feed("<item></item>".repeat(20_000).as_bytes());
        assert_eq!(std::iter::from_fn(|| items.next()).count(), 20_001);
    }

    #[test]
    fn of_an_item_a_thousand_elements_are_read() {
        let elements = |count: usize| (0..count).map(|n| format!("<a{n}>x</a{n}>")).collect::<String>();
        let read = fields(&format!("<item>{}<link href=\"y\"/></item>", elements(998))).unwrap();
        assert_eq!((read.len(), read[998].1.as_str()), (999, "y"));
        assert_eq!(
            fields(&format!("<item>{}<link href=\"y\"/></item>", elements(2000))).unwrap().len(),
            1000
        );
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
