//! Answers that are errors.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Whether the call's outcome is unknown or it was never taken up, so that
/// the same call may be made again. An expired client deadline shows as `Cancelled`.
pub fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

/// An answer that is an error: with a `google.rpc.ErrorInfo`, whose `reason` is the
/// `code` that the HTTP API's problem documents use (<https://google.aip.dev/193>).
pub fn refusal(status: Code, code: &str, message: &str) -> Status {
    refuse(status, code, message, None)
}

/// `INVALID_ARGUMENT`, with a `google.rpc.BadRequest` that names the field.
pub fn invalid(field: &str, code: &str, message: &str) -> Status {
    refuse(Code::InvalidArgument, code, &format!("{field}: {message}"), Some(field))
}

fn refuse(status: Code, code: &str, message: &str, field: Option<&str>) -> Status {
    let mut details = ErrorDetails::with_error_info(code, "dockside", HashMap::new());
    if let Some(field) = field {
        details.add_bad_request_violation(field, message);
    }
    Status::with_error_details(status, message, details)
}

/// A database error at the gRPC boundary.
pub fn from_sqlx(error: &sqlx::Error) -> Status {
    if crate::db::kind(error) == crate::db::Kind::OutcomeUnknown {
        tracing::warn!(%error, "db.outcome_unknown");
        return outcome_unknown();
    }
    if crate::db::is_transient(error) {
        tracing::warn!(%error, "db.unavailable");
        return unavailable("the database is busy or away");
    }
    tracing::error!(%error, "db.error");
    internal()
}

/// The call may be made again.
pub fn unavailable(message: &str) -> Status {
    refusal(Code::Unavailable, "service_unavailable", message)
}

/// The call may be made again: it may have been carried out, or be carried out in a while.
pub fn outcome_unknown() -> Status {
    let message = "the database did not say whether the change was made";
    refusal(Code::Unavailable, "outcome_unknown", message)
}

pub fn internal() -> Status {
    refusal(Code::Internal, "internal_error", "internal error")
}
