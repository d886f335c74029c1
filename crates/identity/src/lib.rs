//! The caller: the access tokens that the user service signs, and what their roles may do.
//!
//! A role or a sign-out takes effect when the token runs out: 15 minutes at most.

mod verifier;

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use service::{Problem, parameters};
use utoipa::ToSchema;
use uuid::Uuid;

pub use verifier::Verifier;

/// `typ` of an access token's header (RFC 9068, section 2.1).
pub const TOKEN_TYPE: &str = "at+jwt";
pub const ISSUER: &str = "dockside";
pub const AUDIENCE: &str = "dockside-api";

/// How the OpenAPI documents describe an access token.
pub const TOKEN_DESCRIPTION: &str = "An access token of `POST /api/v1/auth/login`. Roles: customer, staff, admin; an admin may do what staff may.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Customer,
    Staff,
    Admin,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "customer" => Ok(Self::Customer),
            "staff" => Ok(Self::Staff),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("{text} is not a role")),
        }
    }
}

/// An access token's claims.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: Uuid,
    /// The sign-in that the token came from.
    pub sid: Uuid,
    pub role: Role,
    /// Seconds since the Unix epoch.
    pub iat: i64,
    pub exp: i64,
    pub jti: Uuid,
}

/// The signed-in caller. As an extractor: 401 without a valid token.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub id: Uuid,
    pub role: Role,
    pub session: Uuid,
    /// Until when the token is good, in seconds since the Unix epoch.
    pub until: i64,
}

impl User {
    pub fn is_staff(&self) -> bool {
        self.role >= Role::Staff
    }

    /// 403 for customers.
    pub fn into_staff(self) -> Result<Staff, Problem> {
        if self.is_staff() { Ok(Staff(self)) } else { Err(Problem::forbidden("This is for staff.")) }
    }
}

impl From<User> for audit::Actor {
    fn from(user: User) -> Self {
        Self { id: user.id, role: user.role.as_str() }
    }
}

/// A caller who works here; 403 for customers.
#[derive(Clone, Copy, Debug)]
pub struct Staff(pub User);

/// 403 for all but admins.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub User);

impl User {
    /// As the extractor, for an operation that checks more before it checks the parameters.
    pub async fn of<S>(parts: &Parts, state: &S) -> Result<Self, Problem>
    where
        S: Send + Sync,
        Arc<Verifier>: FromRef<S>,
    {
        Arc::<Verifier>::from_ref(state).caller(&parts.headers).await
    }
}

impl<S> FromRequestParts<S> for User
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let user = Self::of(parts, state).await?;
        parameters::refuse_unknown(parts)?;
        Ok(user)
    }
}

impl<S> FromRequestParts<S> for Staff
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let user = User::of(parts, state).await?;
        let staff = user.into_staff()?;
        parameters::refuse_unknown(parts)?;
        Ok(staff)
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let user = User::of(parts, state).await?;
        if user.role != Role::Admin {
            return Err(Problem::forbidden("This is for admins."));
        }
        parameters::refuse_unknown(parts)?;
        Ok(Self(user))
    }
}
