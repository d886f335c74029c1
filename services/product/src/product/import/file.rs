//! A file of products: bytes in, lines out.

use std::sync::Arc;

use bytes::Bytes;
use service::Problem;

use super::columns::{self, Columns, Names, Options};
use super::lines::{Lines, MAX_LINE, TooLong};
use super::price::Unit;
use super::records::{Broken, Records};
use super::text::{Decoder, Encoding};
use super::{Line, LineError};

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Csv(Options),
}

/// Feed a chunk, read lines until there is none, feed the next.
pub struct File {
    decoder: Decoder,
    body: Body,
    ended: bool,
}

enum Body {
    Json(Lines),
    Csv {
        records: Records,
        options: Options,
        /// Once the header was read.
        columns: Option<Columns>,
    },
}

/// What a line, or a record that begins in it, was read as.
pub struct Read {
    pub number: u64,
    /// Its length in bytes.
    pub bytes: usize,
    /// Nothing of one that is blank, or the header.
    pub line: Option<Result<Line, LineError>>,
}

impl File {
    /// `encoding` is that of a file without a byte order mark.
    pub fn new(kind: Kind, encoding: Encoding) -> Self {
        let body = match kind {
            Kind::Json => Body::Json(Lines::default()),
            Kind::Csv(options) => Body::Csv { records: Records::default(), options, columns: None },
        };
        Self { decoder: Decoder::new(encoding), body, ended: false }
    }

    /// Call it when [`Self::next`] gave `None`.
    pub fn feed(&mut self, chunk: Bytes) {
        let text = self.decoder.feed(chunk);
        self.add(text);
    }

    /// The file has come to its end: there may be more lines.
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
            Body::Csv { records, .. } => records.feed(&text),
        }
    }

    /// The next line. 422 for CSV without a header that names a product's fields.
    pub fn next(&mut self) -> Result<Option<Read>, Problem> {
        let (records, options, columns) = match &mut self.body {
            Body::Json(lines) => {
                let line = lines.next().or_else(|| if self.ended { lines.last() } else { None });
                return Ok(line.map(|(number, line)| from_json(number, line)));
            }
            Body::Csv { records, options, columns } => (records, *options, columns),
        };
        let Some((number, record)) = records.next() else {
            return if self.ended && columns.is_none() { Err(columns::unreadable()) } else { Ok(None) };
        };
        let bytes = record.as_ref().map_or(0, Bytes::len);
        let read = |line| Ok(Some(Read { number, bytes, line }));
        let blank = record.as_ref().is_ok_and(|record| record.trim_ascii().is_empty());
        if blank {
            return read(None);
        }
        let Some(known) = columns else {
            let header = record.map_err(|_| columns::unreadable())?;
            let header = Columns::parse(&header, records.delimiter(), options)?;
            records.expect(header.names().count());
            *columns = Some(header);
            return read(None);
        };
        match record {
            Ok(record) => read(from_csv(number, &record, known).transpose()),
            Err(broken) => read(Some(Err(told(number, broken)))),
        }
    }

    /// What prices count that are mere numbers; known of CSV once its header was read.
    pub fn unit(&self) -> Unit {
        match &self.body {
            Body::Json(_) => Unit::Minor,
            Body::Csv { options, columns, .. } => columns.as_ref().map_or(options.unit, Columns::unit),
        }
    }

    /// CSV's columns, once the header was read.
    pub fn names(&self) -> Option<Arc<Names>> {
        match &self.body {
            Body::Csv { columns: Some(columns), .. } => Some(Arc::clone(columns.names())),
            _ => None,
        }
    }
}

fn from_json(number: u64, line: Result<Bytes, TooLong>) -> Read {
    let bytes = line.as_ref().map_or(0, Bytes::len);
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
        Err(TooLong) => Some(Err(told(number, Broken::TooLong))),
    };
    Read { number, bytes, line }
}

fn from_csv(number: u64, record: &[u8], columns: &mut Columns) -> Result<Option<Line>, LineError> {
    if std::str::from_utf8(record).is_err() {
        return Err(not_utf8(number));
    }
    let body = columns.record(record).map_err(|(pointer, code, detail)| match pointer {
        "" => LineError::new(number, code, detail),
        _ => LineError::at(number, pointer, code, &detail),
    })?;
    body.map(|body| Line::parse(number, body)).transpose()
}

fn not_utf8(number: u64) -> LineError {
    LineError::new(
        number,
        "invalid_utf8",
        "The line is no text: neither UTF-8, nor UTF-16 with a byte order mark.",
    )
}

fn told(number: u64, broken: Broken) -> LineError {
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
