//! The seat map of a date, for buyers in their turn.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use boxoffice_domain::DateId;
use boxoffice_domain::text::TEXT_MAX;

use super::caller::User;
use super::lookup;
use super::params::{self, Id, Query};
use super::problem::Problem;
use super::seat_maps::Filter;
use super::state::App;
use super::turn;
use super::views::SeatMap;

/// The seats of a date, with `ETag`: unchanged is 304.
#[utoipa::path(get, path = "/api/v1/dates/{id}/seats", tag = "concerts",
    params(("status" = Option<String>, Query, description = "Only `available` ones"), ("grade" = Option<String>, Query, description = "Only of this grade"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what one has")),
    responses((status = 200, description = "The seat map", body = SeatMap, headers(("ETag" = String, description = "Its version"))),
        (status = 304, description = "Nothing has changed")))]
pub(crate) async fn list(id: Id<DateId>, app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    let (concert, _) = lookup::date(&app, id.0).await?;
    turn::for_concert(&token, concert.concert.id)?;
    turn::is_running(&app, &token).await?;
    let query = Query::of(&request, &["status", "grade"])?;
    let only_available = match query.get("status") {
        None => false,
        Some("available") => true,
        Some(_) => return Err(Problem::field("status", "must be available")),
    };
    let grade = query.get("grade");
    params::text("grade", grade, TEXT_MAX)?;
    let version = app.seats.version(id.0).await?.ok_or_else(Problem::not_found)?;
    if is_known(&request, version) {
        return Ok(versioned(StatusCode::NOT_MODIFIED, version).finish());
    }
    let maps = app.seat_maps.of(&app.seats, id.0, version).await?.ok_or_else(Problem::not_found)?;
    let filter = Filter { only_available, grade: grade.map(str::to_owned) };
    let (body, gzipped) = maps.map(filter, accepts_gzip(&request)).await?;
    let mut response = versioned(StatusCode::OK, maps.version());
    response.insert_header(ContentType::json());
    if gzipped {
        response.insert_header((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    Ok(response.body(body))
}

/// The headers of a map, and of the answer that it has not changed (RFC 9110, 15.4.5).
fn versioned(status: StatusCode, version: u64) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((header::ETAG, etag(version)));
    response.insert_header((header::VARY, HeaderValue::from_static("Accept-Encoding")));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")));
    response
}

/// Weak, because the same map goes out plain and compressed.
fn etag(version: u64) -> String {
    format!("W/\"{version:x}\"")
}

/// Whether the client has this version (RFC 9110, 13.1.2: compared weakly).
fn is_known(request: &HttpRequest, version: u64) -> bool {
    let opaque = format!("\"{version:x}\"");
    let values = request.headers().get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == opaque)
}

fn accepts_gzip(request: &HttpRequest) -> bool {
    let values = request.headers().get_all(header::ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.strip_prefix('='));
        let refused = weight.is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn with(name: header::HeaderName, value: &'static str) -> HttpRequest {
        TestRequest::default().insert_header((name, value)).to_http_request()
    }

    #[test]
    fn etags_are_compared_weakly() {
        for (value, known) in
            [("W/\"ff\"", true), ("\"ff\"", true), ("\"a\", W/\"ff\"", true), ("*", true), ("\"fe\"", false), ("ff", false), ("", false)]
        {
            assert_eq!(is_known(&with(header::IF_NONE_MATCH, value), 255), known, "{value}");
        }
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for (value, accepted) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("gzip; Q=0.000", false), ("identity", false), ("", false)]
        {
            assert_eq!(accepts_gzip(&with(header::ACCEPT_ENCODING, value)), accepted, "{value}");
        }
    }
}
