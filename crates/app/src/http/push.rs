//! Streams of frames: server-sent events and WebSockets, by the queue token alone, because a browser can send no other
//! header with them. A stolen token of a waiting entry shows its place, and nothing else.
//!
//! The connection is detached from the HTTP server ([`super::connections`]) and served by one small task ([`mod@stream`]).
//! [`super::limits`] bounds how many one user may have open here.

mod incoming;
mod stream;

use std::time::Duration;

use actix_http::ws;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, rt};
use boxoffice_domain::{ConcertId, Place, Timestamp};
use boxoffice_engine::push::{Form, ListenError, OwnFrames};
use boxoffice_ports::RoomError;

use stream::{OpenStream, retry_line};

use super::connections::ConnectionHandle;
use super::headers::request_id;
use super::params::Query;
use super::problem::{Code, Problem};
use super::state::App;
use super::turn;
use super::views::QueueFrame;

/// The only version of the protocol that there is (RFC 6455, 4.2.1).
const WEBSOCKET_VERSION: &str = "13";

/// How one's place moves, as server-sent events: one's own `queue` frame first, then `position` and whatever happens.
/// Ends with one's turn or entry. With `Last-Event-ID` what was missed, if that is little, else a `queue` frame.
#[utoipa::path(get, path = "/api/v1/queue/stream", tag = "queue", responses(
    (status = 200, description = "Events; the first one is", body = QueueFrame, content_type = "text/event-stream")))]
pub(crate) async fn stream(app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    open(&app, &request, Form::Sse).await
}

/// The same as text messages of a WebSocket.
#[utoipa::path(get, path = "/api/v1/queue/socket", tag = "queue", responses(
    (status = 101, description = "A WebSocket whose first message is", body = QueueFrame)))]
pub(crate) async fn socket(app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    open(&app, &request, Form::WebSocket).await
}

async fn open(app: &App, request: &HttpRequest, form: Form) -> Result<HttpResponse, Problem> {
    let query = Query::of(request, &["token"])?;
    let token = turn::of_stream(app, request, query.get("token"))?;
    let head = match form {
        Form::Sse => events_head(),
        Form::WebSocket => handshake(request)?,
    };
    let permit = app.limits.stream(token.user)?;
    // A place that the room has lost is restored first; like a poll, this shows that the buyer is present.
    match turn::place(app, &token).await {
        Ok(_) | Err(RoomError::NoRoom) => {}
        Err(error) => return Err(error.into()),
    }
    let resume = request.headers().get("Last-Event-ID").and_then(|id| id.to_str().ok()).and_then(|id| id.trim().parse().ok());
    let subscribed = app.hub.listen(token.concert, token.entry, form, resume, &turn::forgotten(&token));
    let subscription = subscribed.map_err(|error| match error {
        ListenError::Room(error) => error.into(),
        ListenError::Full => Problem::new(Code::Overloaded, "this instance takes no more streams; poll with GET /queue"),
    })?;
    let connection = request.conn_data::<ConnectionHandle>().and_then(ConnectionHandle::detach);
    let (socket, connection_permit) = connection.ok_or_else(|| Problem::internal("no connection to detach"))?;
    let stall = Duration::from_millis(app.settings.http.write_timeout_ms);
    rt::spawn(OpenStream::new(socket, subscription, form, stall, (permit, connection_permit)).run(head));
    // No client reads this answer: it makes the HTTP server drop its state of the connection.
    Ok(HttpResponse::Ok().force_close().finish())
}

/// The head of an event stream. The body ends with the connection.
fn events_head() -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n\
         connection: close\r\nx-request-id: {}\r\n\r\n",
        request_id()
    )
    .into_bytes();
    head.extend(retry_line());
    head
}

/// The answer to an opening handshake (RFC 6455, 4.2).
fn handshake(request: &HttpRequest) -> Result<Vec<u8>, Problem> {
    let wrong = |detail| Problem::new(Code::InvalidRequest, detail);
    let headers = request.headers();
    if !has_token(headers, header::UPGRADE, "websocket") || !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(wrong("a WebSocket takes Connection: Upgrade and Upgrade: websocket"));
    }
    if !has_token(headers, header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION) {
        return Err(wrong("Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| wrong("Sec-WebSocket-Key is missing"))?;
    let accept = ws::hash_key(key.as_bytes());
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ".to_vec();
    head.extend(accept);
    head.extend(format!("\r\nx-request-id: {}\r\n\r\n", request_id()).bytes());
    Ok(head)
}

/// Whether one of a header's values is this token, in any case.
fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// A client's own frames, as the public surface defines them.
pub(super) struct QueueFrames;

impl OwnFrames for QueueFrames {
    fn queue(&self, concert: ConcertId, place: &Place, seq: u64, admitted: u64, now: Timestamp) -> String {
        // All keys are strings, so this cannot fail.
        serde_json::to_string(&QueueFrame::new(concert, place, seq, admitted, now)).unwrap_or_default()
    }
}
