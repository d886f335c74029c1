//! A file of products: bytes in, lines out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use service::Problem;

use super::columns::{self, Cells, Columns, Names, Options};
use super::items::{self, Items};
use super::lines::{Lines, MAX_LINE, TooLong};
use super::price::Unit;
use super::profile::{self, Made, Profile};
use super::records::{Broken, Records};
use super::text::{Decoder, Encoding};
use super::{Line, LineError};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Csv(Options),
    /// A feed for Google Merchant Center in XML.
    Feed(Options),
}

/// Feed a chunk, read lines until there is none, feed the next.
pub struct File {
    decoder: Decoder,
    body: Body,
    ended: bool,
    /// The last line that something began in, and how many did.
    begun: (u64, u64),
}

enum Body {
    Json(Lines),
    Feed {
        items: Items,
        reader: Box<profile::Reader>,
    },
    Csv {
        /// Boxed for its size.
        records: Box<Records>,
        options: Options,
        /// Once the header was read.
        table: Option<(Cells, Table)>,
        header: Bytes,
        /// Products of several records, that were completed together.
        made: VecDeque<Read>,
    },
}

/// What records are read by.
enum Table {
    Own(Columns),
    Platform(Box<profile::Reader>),
}

/// What a line, or a record that begins in it, was read as.
pub struct Read {
    pub number: u64,
    /// As it is in the file; nothing of one that is too long, or was made of several.
    pub raw: Bytes,
    /// About what it takes: batches end by it.
    pub bytes: usize,
    /// Nothing of one that is blank, or the header.
    pub line: Option<Result<Line, LineError>>,
}

impl File {
    /// `encoding` is that of a file without a byte order mark.
    pub fn new(kind: Kind, encoding: Encoding) -> Self {
        let body = match kind {
            Kind::Json => Body::Json(Lines::default()),
            Kind::Feed(options) => {
                let reader = Box::new(profile::Reader::of_feed(options));
                Body::Feed { items: Items::default(), reader }
            }
            Kind::Csv(options) => {
                let (records, made) = (Box::default(), VecDeque::new());
                Body::Csv { records, options, table: None, header: Bytes::new(), made }
            }
        };
        Self { decoder: Decoder::new(encoding), body, ended: false, begun: (0, 0) }
    }

    /// Call it when [`Self::next`] gave `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        let text = self.decoder.feed(chunk);
        self.add(text);
    }

    /// The file has ended: there may be more lines.
    pub fn end(&mut self) {
        let text = self.decoder.end();
        self.add(text);
        self.ended = true;
        if let Body::Csv { records, .. } = &mut self.body {
            records.end();
        }
    }

    fn add(&mut self, text: Bytes) {
        match &mut self.body {
            Body::Json(lines) => lines.feed(text),
            Body::Feed { items, .. } => items.feed(&text),
            Body::Csv { records, .. } => records.feed(&text),
        }
    }

    /// The next line. 422 for CSV without a header that names a product's fields.
    pub fn next(&mut self) -> Result<Option<Read>, Problem> {
        let mut read = self.read()?;
        if let Some(Read { number, line: Some(line), .. }) = &mut read {
            let before = if self.begun.0 == *number { self.begun.1 } else { 0 };
            self.begun = (*number, before + 1);
            if let Ok(line) = line {
                line.place = *number | (before << 40);
            }
        }
        Ok(read)
    }

    fn read(&mut self) -> Result<Option<Read>, Problem> {
        let (records, options, table, header, made) = match &mut self.body {
            Body::Json(lines) => {
                let line = lines.next().or_else(|| if self.ended { lines.last() } else { None });
                return Ok(line.map(|(number, line)| from_json(number, line)));
            }
            Body::Feed { items, reader } => {
                let read = items.next().map(|(number, item)| from_feed(number, item, reader));
                // Once: then the feed is over.
                let cut = if read.is_none() && self.ended { items.cut_off() } else { None };
                let cut = cut.map(|number| {
                    *items = Items::default();
                    let error = LineError::new(number, "malformed_xml", "The item does not end.");
                    Read { number, raw: Bytes::new(), bytes: 0, line: Some(Err(error)) }
                });
                return Ok(read.or(cut));
            }
            Body::Csv { records, options, table, header, made } => (records, *options, table, header, made),
        };
        if let Some(read) = made.pop_front() {
            return Ok(Some(read));
        }
        let Some((number, record)) = records.next() else {
            return match table {
                None if self.ended => Err(columns::unreadable()),
                Some((_, Table::Platform(reader))) if self.ended => {
                    made.extend(reader.end().into_iter().map(from_platform));
                    Ok(made.pop_front())
                }
                _ => Ok(None),
            };
        };
        let raw = record.as_ref().cloned().unwrap_or_default();
        let read = |line| Ok(Some(Read { number, bytes: raw.len(), raw, line }));
        let blank = record.as_ref().is_ok_and(|record| record.trim_ascii().is_empty());
        if blank {
            return read(None);
        }
        let Some((cells, known)) = table else {
            *header = record.map_err(|_| columns::unreadable())?;
            let mut cells = Cells::new(records.delimiter());
            let names = columns::header(&mut cells, header)?;
            records.expect(names.len());
            *header = [&records.prologue()[..], &header[..]].concat().into();
            *table = Some((cells, Table::new(&names, options)?));
            return read(None);
        };
        let record = match record {
            Ok(record) => record,
            Err(broken) => return read(Some(Err(broken_line(number, broken)))),
        };
        if std::str::from_utf8(&record).is_err() {
            return read(Some(Err(not_utf8(number))));
        }
        let Some(cells) = cells.read(&record) else {
            return read(Some(Err(broken_line(number, Broken::Quote))));
        };
        if cells.iter().all(|cell| cell.trim().is_empty()) {
            return read(None);
        }
        match known {
            Table::Own(columns) => {
                let body = columns.record(cells, columns::breaks(&record) + 1);
                read(Some(body.map_err(|fault| at(number, fault)).and_then(|body| Line::parse(number, body))))
            }
            Table::Platform(reader) => {
                made.extend(reader.record(number, cells).into_iter().map(from_platform));
                read(None)
            }
        }
    }

    /// What prices count that are mere numbers; known of CSV once its header was read.
    pub fn unit(&self) -> Unit {
        match &self.body {
            Body::Json(_) => Unit::Minor,
            Body::Feed { .. } => Unit::Major,
            Body::Csv { table: Some((_, Table::Own(columns))), .. } => columns.unit(),
            Body::Csv { table: Some(_), .. } => Unit::Major,
            Body::Csv { options, .. } => options.unit,
        }
    }

    /// CSV's columns, once the header was read.
    pub fn names(&self) -> Option<Arc<Names>> {
        match &self.body {
            Body::Csv { table: Some((_, Table::Own(columns))), .. } => Some(Arc::clone(columns.names())),
            Body::Csv { table: Some((_, Table::Platform(reader))), .. } | Body::Feed { reader, .. } => {
                Some(Arc::clone(reader.names()))
            }
            _ => None,
        }
    }

    /// The platform that exported it, once the header was read, and the cells that have no place here, by
    /// their column.
    pub fn platform(&self) -> Option<(Profile, BTreeMap<String, u64>)> {
        match &self.body {
            Body::Csv { table: Some((_, Table::Platform(reader))), .. } | Body::Feed { reader, .. } => {
                Some((reader.profile(), reader.left_out().clone()))
            }
            _ => None,
        }
    }

    /// CSV's header as it is in the file, with the line that names the delimiter, once it was read; and the delimiter.
    pub fn header(&self) -> Option<(Bytes, char)> {
        match &self.body {
            Body::Csv { table: Some(_), header, records, .. } => {
                Some((header.clone(), char::from(records.delimiter())))
            }
            _ => None,
        }
    }

    /// All up to this line is dealt with, of what was read up to this line.
    pub fn done(&self, line: u64) -> u64 {
        match &self.body {
            Body::Csv { table: Some((_, Table::Platform(reader))), made, .. } => {
                made.iter().map(|read| read.number - 1).fold(reader.done(line), u64::min)
            }
            _ => line,
        }
    }
}

impl Table {
    fn new(names: &[String], options: Options) -> Result<Self, Problem> {
        let lower: Vec<String> = names.iter().map(|name| name.trim().to_lowercase()).collect();
        let own = Columns::is_own(&lower);
        match options.profile.or_else(|| if own { None } else { Profile::of(&lower) }) {
            Some(profile) => Ok(Self::Platform(Box::new(profile::Reader::new(profile, names, options)?))),
            None => Ok(Self::Own(Columns::new(names, options)?)),
        }
    }
}

fn from_json(number: u64, line: Result<Bytes, TooLong>) -> Read {
    let raw = line.as_ref().cloned().unwrap_or_default();
    let line = match line {
        Ok(line) if line.trim_ascii().is_empty() => None,
        Ok(line) if std::str::from_utf8(&line).is_err() => Some(Err(not_utf8(number))),
        Ok(line) => {
            let body = serde_json::from_slice(&line).map_err(|error| {
                let detail = format!("The line is not JSON: see column {}.", error.column());
                LineError::new(number, "malformed_json", detail)
            });
            Some(body.and_then(|body| Line::parse(number, body)))
        }
        Err(TooLong) => Some(Err(broken_line(number, Broken::TooLong))),
    };
    Read { number, bytes: raw.len(), raw, line }
}

fn from_feed(number: u64, item: Result<Bytes, TooLong>, reader: &mut profile::Reader) -> Read {
    let bytes = item.as_ref().map_or(0, Bytes::len);
    let read = |line| Read { number, raw: Bytes::new(), bytes, line: Some(line) };
    let Ok(item) = item else { return read(Err(broken_line(number, Broken::TooLong))) };
    let Ok(text) = std::str::from_utf8(&item) else { return read(Err(not_utf8(number))) };
    let Some(fields) = items::fields(text) else {
        return read(Err(LineError::new(number, "malformed_xml", "The item is not well-formed XML.")));
    };
    Read { bytes, ..from_platform(reader.item(number, fields)) }
}

fn from_platform(Made { line: number, body, bytes }: Made) -> Read {
    let line = body.map_err(|fault| at(number, fault)).and_then(|body| Line::parse(number, body));
    Read { number, raw: Bytes::new(), bytes, line: Some(line) }
}

fn at(number: u64, (pointer, code, detail): columns::Fault) -> LineError {
    match pointer {
        "" => LineError::new(number, code, detail),
        _ => LineError::at(number, pointer, code, &detail),
    }
}

fn not_utf8(number: u64) -> LineError {
    LineError::new(
        number,
        "invalid_utf8",
        "The line is no text: neither UTF-8, nor UTF-16 with a byte order mark.",
    )
}

fn broken_line(number: u64, broken: Broken) -> LineError {
    let (code, detail) = match broken {
        Broken::TooLong => {
            let detail = format!("It is longer than {} KiB.", MAX_LINE / 1024);
            return LineError::new(number, "line_too_long", detail);
        }
        Broken::Quote => ("malformed_csv", "A quote within a quoted cell has to be doubled."),
        Broken::Open => {
            ("malformed_csv", "A quote is not closed; what follows the line was read as records.")
        }
        Broken::OpenToTheEnd => (
            "malformed_csv",
            "A quote is not closed; nothing from this line to the end of the file was read.",
        ),
    };
    LineError::new(number, code, detail)
}
