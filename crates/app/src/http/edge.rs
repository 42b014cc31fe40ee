//! The edge: one wrap around every request. It names the request, counts it, and writes every error as a problem
//! document, so that no error leaves in another shape. Requests that the connection refuses are answered here, too.

use std::future::Future;
use std::time::Instant;

use actix_http::ConnectionType;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use futures_util::future::Either;

use super::caller;
use super::connections::{AnswerBody, ConnectionHandle, ConnectionPermit, RequestFault, SpareReason};
use super::headers::{REQUEST_ID, request_id};
use super::problem::{Code, Problem};
use super::routes::RouteName;
use super::state::App;

/// Paths that a spare connection is served, with or without a token.
const ALWAYS_SERVED: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];
/// The route under which metrics count requests that the connection refuses.
const REFUSED: &str = "door";

/// For `App::wrap_fn`.
pub(super) fn edge<S>(request: ServiceRequest, next: &S) -> impl Future<Output = Result<ServiceResponse<BoxBody>, Error>> + use<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    let started = Instant::now();
    let app = request.app_data::<Data<App>>().cloned();
    let connection = request.conn_data::<ConnectionHandle>().cloned();
    let refusal = connection.as_ref().and_then(|connection| refusal(connection, &request));
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
            count(&app, connection.as_ref(), &response, started, is_refused);
        }
        let request = response.request();
        tracing::debug!(
            http.method = %request.method(), http.path = request.path(), http.status = response.status().as_u16(), request.id = %id,
            "request answered"
        );
        Ok(match connection {
            Some(connection) => response.map_body(|_, body| AnswerBody::boxed(body, &connection)),
            None => response,
        })
    }
}

/// For `/metrics`, and for adaptive admission.
fn count(app: &App, connection: Option<&ConnectionHandle>, response: &ServiceResponse<BoxBody>, started: Instant, is_refused: bool) {
    let request = response.request();
    let route = request.app_data::<RouteName>().map_or("unknown", |name| name.0);
    let route = if is_refused { REFUSED } else { route };
    // The time that a client takes to send its body is not this server's.
    let whole_at = connection.and_then(ConnectionHandle::whole_at).map(tokio::time::Instant::into_std);
    let took = whole_at.map_or(started, |whole_at| whole_at.max(started)).elapsed();
    app.metrics.request(request.method(), route, response.status(), took);
    if !is_refused && connection.and_then(ConnectionHandle::fault).is_none() {
        app.server_health.answered(took, response.status().is_server_error());
    }
}

/// Why a request is not served on any path.
fn refusal(connection: &ConnectionHandle, request: &ServiceRequest) -> Option<Problem> {
    if let Some(fault) = connection.fault() {
        return Some(match fault {
            RequestFault::Malformed => Problem::new(Code::InvalidRequest, "the request is no valid HTTP/1.1"),
            RequestFault::HeadTooLarge => Problem::new(Code::HeadTooLarge, "the request line and the headers are too long"),
            RequestFault::HeadLate => Problem::new(Code::RequestTimeout, "the request line and the headers did not come in time"),
            RequestFault::BodyLate => Problem::body_late(),
        });
    }
    let spare = connection.with_permit(ConnectionPermit::spare)??;
    if ALWAYS_SERVED.contains(&request.path()) || caller::is_operator(request.request()) {
        return None;
    }
    Some(match spare {
        SpareReason::Full => Problem::new(Code::Overloaded, "too many connections are open"),
        SpareReason::Address => Problem::new(Code::TooManyRequests, "too many connections of one address are open"),
    })
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

/// The problem document for an error whose body is not ours.
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
