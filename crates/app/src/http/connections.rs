//! Connections in front of the HTTP server, and how they are detached from it.
//!
//! The server reads and writes through a [`DetachableSocket`] ([`socket`]), which passes on one request at a time and has
//! a time-out for everything. [`framing`] finds the end of a request; [`capacity`] bounds the number of connections, and
//! [`spares`] those beyond it. [`connection`] is the state that socket and handler share.
//!
//! *Detaching.* A request that becomes a stream does not need what the server keeps for the next request: two buffers of
//! 8 KiB and its own state. For ten thousand waiting clients that would be 200 MB; detached, a connection costs its
//! socket and a small task. A handler detaches the socket by its [`ConnectionHandle`]: the server then reads the end of
//! its input, its answer is discarded, and it drops the connection.

mod answer_body;
mod capacity;
mod connection;
mod framing;
mod socket;
mod spares;
mod timeouts;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::App as ActixApp;
use actix_web::dev::AppConfig;
use actix_web::error::DispatchError;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use tokio::net::TcpSocket;

pub(super) use answer_body::AnswerBody;
pub(super) use capacity::{Capacity, ConnectionPermit, SpareReason};
pub(super) use connection::{ConnectionHandle, RequestFault};

use super::edge;
use super::routes::configure;
use super::state::App;
use connection::Connection;
use socket::DetachableSocket;
use spares::SpareConnections;
use timeouts::Timeouts;

/// Connections that wait to be accepted: those of an on-sale's first second.
const BACKLOG: u32 = 8_192;
/// The server's own bound would stop accepting, health included; [`capacity`] has another.
const CONNECTIONS_PER_WORKER: usize = u32::MAX as usize;
/// How long requests in flight may take after the server is stopped, seconds.
const SHUTDOWN_S: u64 = 10;

/// Binds `http.listen`, and serves once the server is awaited.
pub(super) fn serve(app: Data<App>) -> io::Result<(Server, SocketAddr)> {
    let listener = listen(app.settings.http.listen)?;
    let address = listener.local_addr()?;
    let builder = Server::build()
        .workers(app.settings.http.worker_count())
        .max_concurrent_connections(CONNECTIONS_PER_WORKER)
        .shutdown_timeout(SHUTDOWN_S)
        .disable_signals();
    let ending = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let service = ActixApp::new().wrap_fn(edge::edge).configure(configure(app.clone()));
        let service = service.into_factory().map_err(|error: actix_web::Error| error.error_response());
        let ending = ending.clone();
        let timeouts = Timeouts::new(&app.settings.http);
        let (capacity, spares) = (app.capacity.clone(), Rc::new(SpareConnections::default()));
        let http = HttpService::build()
            // The socket has a deadline for every head, not only the first, and a problem for a late one.
            .client_request_timeout(Duration::ZERO)
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .local_addr(address)
            .on_connect_ext(|socket: &DetachableSocket, data| {
                data.insert(socket.handle());
            })
            .h1(map_config(service, |()| AppConfig::default()));
        fn_service(move |socket: TcpStream| {
            // An answer is sent in pieces: none waits for the client to acknowledge the one before.
            let _ = socket.set_nodelay(true);
            let peer = socket.peer_addr().ok();
            let connection = Connection::new(socket, capacity.enter(peer.map(|peer| peer.ip())));
            let has_room = !connection.is_spare() || spares.admit(&capacity, &connection);
            async move {
                let full = || DispatchError::Io(io::ErrorKind::ConnectionRefused.into());
                if has_room { Ok((DetachableSocket::new(connection, timeouts), peer)) } else { Err(full()) }
            }
        })
        .and_then(http)
    })?;
    Ok((builder.run(), address))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
