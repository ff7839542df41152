//! Query parameters, strictly: what is not known or not understood is an error that names it.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

/// A 400 and what is wrong.
pub(super) type BadRequest = (StatusCode, String);

/// The parameters in their order.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = BadRequest;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BadRequest> {
        let parsed: Result<Query<Vec<(String, String)>>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        match parsed {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(bad_request(&format!("the query string: {error}"))),
        }
    }
}

impl Parameters {
    /// Takes the parameter that goes by `name`, the last one if it is repeated.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let mut taken = None;
        while let Some(index) = self.0.iter().position(|(key, _)| key == name) {
            taken = Some(self.0.remove(index).1);
        }
        taken
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, known: &str) -> Result<(), BadRequest> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad_request(&format!("unknown parameter {name:?}; there is {known}"))),
        }
    }
}

pub(super) fn bad_request(what: &str) -> BadRequest {
    (StatusCode::BAD_REQUEST, format!("{what}\n"))
}
