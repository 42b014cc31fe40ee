//! The edge: one wrap around every request. It names the request, counts it, and writes whatever error came out as a
//! problem document, so that no error leaves in another shape. What the door refuses is refused here, too.

use std::future::Future;
use std::time::Instant;

use actix_http::ConnectionType;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use futures_util::future::Either;

use super::App;
use super::auth;
use super::door::{Fault, Key, Place, Spare};
use super::problem::{Code, Problem};
use super::routes::RouteName;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that a connection on a spare place is served with, with or without a token.
const ALWAYS_SERVED: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];
/// The route that refusals of the door are counted by.
const DOOR: &str = "door";

/// For `App::wrap_fn`.
pub(super) fn edge<S>(request: ServiceRequest, next: &S) -> impl Future<Output = Result<ServiceResponse<BoxBody>, Error>> + use<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    let started = Instant::now();
    let app = request.app_data::<Data<App>>().cloned();
    let key = request.conn_data::<Key>().cloned();
    let refusal = key.as_ref().and_then(|key| refusal(key, &request));
    let is_refused = refusal.is_some();
    let answer = match refusal {
        Some(problem) => Either::Left(std::future::ready(Ok(request.error_response(problem)))),
        None => Either::Right(next.call(request)),
    };
    async move {
        let id = request_id();
        let mut response = finish(answer.await?, &id);
        if is_refused {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        if let Some(app) = app {
            let request = response.request();
            let route = request.app_data::<RouteName>().map_or("unknown", |name| name.0);
            let route = if is_refused { DOOR } else { route };
            // How long a client takes to send its body says nothing of how this server fares.
            let whole_at = key.as_ref().and_then(Key::whole_at).map(tokio::time::Instant::into_std);
            let took = whole_at.map_or(started, |whole_at| whole_at.max(started)).elapsed();
            app.metrics.request(request.method(), route, response.status(), took);
            if !is_refused && key.as_ref().and_then(Key::fault).is_none() {
                app.fares.answered(took, response.status().is_server_error());
            }
        }
        let request = response.request();
        tracing::debug!(
            http.method = %request.method(), http.path = request.path(), http.status = response.status().as_u16(), request.id = %id,
            "request answered"
        );
        Ok(match key {
            Some(key) => response.map_body(|_, body| key.answer(body)),
            None => response,
        })
    }
}

/// Why a request is not served on any path.
fn refusal(key: &Key, request: &ServiceRequest) -> Option<Problem> {
    if let Some(fault) = key.fault() {
        return Some(match fault {
            Fault::Malformed => Problem::new(Code::InvalidRequest, "this is no HTTP/1.1 that can be understood"),
            Fault::HeadTooLarge => Problem::new(Code::HeadTooLarge, "the request line and the headers are too long"),
            Fault::HeadLate => Problem::new(Code::RequestTimeout, "the request line and the headers did not come in time"),
            Fault::BodyLate => body_late(),
        });
    }
    let spare = key.with_place(Place::spare)??;
    if ALWAYS_SERVED.contains(&request.path()) || auth::is_operator(request.request()) {
        return None;
    }
    Some(match spare {
        Spare::Full => Problem::new(Code::Overloaded, "too many connections are open"),
        Spare::Address => Problem::new(Code::TooManyRequests, "too many connections of one address are open"),
    })
}

/// For a body that does not come.
pub(super) fn body_late() -> Problem {
    Problem::new(Code::RequestTimeout, "the body did not come in time")
}

fn finish(response: ServiceResponse<BoxBody>, id: &str) -> ServiceResponse<BoxBody> {
    let mut response = match replacement(response.response(), id) {
        Some(problem) => response.into_response(problem),
        None => response,
    };
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The problem document for an answer that is an error and has no body of ours yet.
fn replacement(response: &HttpResponse, id: &str) -> Option<HttpResponse> {
    if let Some(problem) = response.error().and_then(|error| error.as_error::<Problem>()) {
        if let Some(source) = problem.source() {
            tracing::error!(request.id = id, error.code = problem.code().as_str(), error = %source, "request failed");
        }
        return Some(problem.response(id));
    }
    let status = response.status();
    if (!status.is_client_error() && !status.is_server_error())
        || (response.error().is_none() && response.headers().contains_key(header::CONTENT_TYPE))
    {
        return None;
    }
    // Written by the framework or a library.
    if let Some(error) = response.error().filter(|_| status.is_server_error()) {
        tracing::error!(request.id = id, error = %error, "request failed");
    }
    let problem = match status {
        StatusCode::NOT_FOUND => Problem::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed("GET"),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(Code::UnsupportedMediaType, "the body must be application/json"),
        status if status.is_client_error() => Problem::new(Code::InvalidRequest, "the request could not be understood"),
        _ => Problem::new(Code::Internal, "a defect of the server; it has been logged"),
    };
    Some(problem.response(id))
}

/// 128 random bits in lower-case hex.
pub(super) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
