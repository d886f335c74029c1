//! Forms with files. The fields come first, the files are passed on as they come, and none is held.

use axum::extract::{FromRequest, Request};
use axum::http::header;
use multer::{Constraints, Field, Multipart, SizeLimit};

use crate::form::Form;
use crate::page::Failed;
use crate::visitor::Visitor;

/// The longest form, in bytes: the API takes files of one GiB.
const MOST: u64 = 1 << 30;
const FIELD: u64 = 4 * 1024;
const FIELDS: usize = 20;

/// A form that a page of ours has sent, up to its first file.
pub struct Upload {
    pub form: Form,
    next: Option<Field<'static>>,
    rest: Multipart<'static>,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Failed;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failed> {
        let visitor = request.extensions().get::<Visitor>().cloned().ok_or(Failed::Forbidden)?;
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let boundary = multer::parse_boundary(kind.unwrap_or_default()).map_err(|_| Failed::Forbidden)?;
        let limits = SizeLimit::new().whole_stream(MOST).per_field(FIELD).for_field("file", MOST);
        let body = request.into_body().into_data_stream();
        let mut rest = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(limits));
        let mut fields = Vec::new();
        let mut next = None;
        while let Some(field) = rest.next_field().await.map_err(failed)? {
            if field.name() == Some("file") {
                next = Some(field);
                break;
            }
            if fields.len() == FIELDS {
                return Err(Failed::TooLarge);
            }
            let name = field.name().unwrap_or_default().to_owned();
            fields.push((name, field.text().await.map_err(failed)?));
        }
        let form = Form::of(fields);
        if visitor.has_shown(form.get("csrf")) {
            Ok(Self { form, next, rest })
        } else {
            Err(Failed::Forbidden)
        }
    }
}

impl Upload {
    /// The next file that was chosen. The one before has to be dropped.
    pub async fn file(&mut self) -> Result<Option<Field<'static>>, Failed> {
        loop {
            let field = match self.next.take() {
                Some(field) => Some(field),
                None => self.rest.next_field().await.map_err(failed)?,
            };
            match field {
                // A field in which no file was chosen has an empty name for it.
                Some(field) if field.file_name().is_none_or(str::is_empty) => drop(field),
                field => return Ok(field),
            }
        }
    }
}

fn failed(error: multer::Error) -> Failed {
    match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            Failed::TooLarge
        }
        _ => Failed::Forbidden,
    }
}
