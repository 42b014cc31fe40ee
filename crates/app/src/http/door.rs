//! Connections in front of the HTTP server, and how they are taken away from it.
//!
//! The server reads and writes through a [`Door`] ([`connection`]), which lets in one request at a time and waits for
//! nothing for ever. [`framing`] is where a request ends; [`crowd`] how many connections there may be.
//!
//! *Taken away.* A request that turns into a stream needs nothing of what the server keeps for the next request, which
//! is two buffers of 8 KiB and its own state. Ten thousand people who wait would hold 200 MB of it; taken away, a
//! connection costs its socket and a small task. The handler of a request may take the socket out by its [`Key`]: from
//! then on the server finds the end of its input, writes its answer to nobody, and forgets the connection.

mod connection;
mod crowd;
mod framing;

use std::io;
use std::net::SocketAddr;
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

use super::{App, configure, edge};
use connection::{Door, Limits, Shared};
pub(super) use connection::{Fault, Key};
pub(super) use crowd::{Crowd, Place, Spare};

/// Connections that wait to be accepted: what an on-sale's first second brings.
const BACKLOG: u32 = 8_192;
/// The server's own bound would stop accepting, health included; [`crowd`] has another.
const CONNECTIONS_PER_WORKER: usize = u32::MAX as usize;
/// How long requests in flight may take once the server is told to stop, seconds.
const SHUTDOWN_S: u64 = 10;

/// Binds `http.listen`, and serves once the server is awaited.
pub(super) fn serve(app: Data<App>) -> io::Result<(Server, SocketAddr)> {
    let (listen, workers) = (app.settings.http.listen, app.settings.http.worker_count());
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    let builder =
        Server::build().workers(workers).max_concurrent_connections(CONNECTIONS_PER_WORKER).shutdown_timeout(SHUTDOWN_S).disable_signals();
    let ending = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let service = ActixApp::new().wrap_fn(edge::edge).configure(configure(app.clone()));
        let service = service.into_factory().map_err(|error: actix_web::Error| error.error_response());
        let ending = ending.clone();
        let limits = Limits::new(&app.settings.http);
        let (crowd, spares) = (app.crowd.clone(), Rc::new(crowd::Spares::default()));
        let http = HttpService::build()
            // The door has a deadline for every head, not the first alone, and a problem for what is late.
            .client_request_timeout(Duration::ZERO)
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .local_addr(address)
            .on_connect_ext(|door: &Door, data| {
                data.insert(door.key());
            })
            .h1(map_config(service, |()| AppConfig::default()));
        fn_service(move |socket: TcpStream| {
            // An answer goes in pieces: none of them waits for the client to acknowledge the one before.
            let _ = socket.set_nodelay(true);
            let peer = socket.peer_addr().ok();
            let shared = Shared::new(socket, crowd.enter(peer.map(|peer| peer.ip())));
            let has_room = !shared.is_spare() || spares.admit(&crowd, &shared);
            async move {
                let full = || DispatchError::Io(io::ErrorKind::ConnectionRefused.into());
                if has_room { Ok((Door::new(shared, limits), peer)) } else { Err(full()) }
            }
        })
        .and_then(http)
    })?;
    Ok((builder.run(), address))
}
