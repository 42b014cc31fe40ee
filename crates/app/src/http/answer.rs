//! JSON answers.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use super::problem::Problem;

pub(crate) fn json(status: StatusCode, view: &impl Serialize) -> Result<HttpResponse, Problem> {
    json_with(&mut HttpResponse::build(status), view)
}

pub(super) fn json_with(response: &mut HttpResponseBuilder, view: &impl Serialize) -> Result<HttpResponse, Problem> {
    // Most answers fit.
    let mut body = Vec::with_capacity(768);
    serde_json::to_writer(&mut body, view).map_err(Problem::internal)?;
    Ok(response.insert_header(ContentType::json()).body(body))
}

pub(crate) fn ok(view: &impl Serialize) -> Result<HttpResponse, Problem> {
    json(StatusCode::OK, view)
}
