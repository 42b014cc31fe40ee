//! Connections that can be taken away from the HTTP server: a request that turns into a stream needs nothing of what
//! the server keeps for the next request, which is two buffers of 8 KiB and its own state. Ten thousand people who wait
//! would hold 200 MB of it; taken away, a connection costs its socket and a small task.
//!
//! The server reads and writes through a [`Door`]. Whoever answers a request may take the socket out by its [`Key`]:
//! from then on the server finds the end of its input, writes its answer to nobody, and forgets the connection.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::App as ActixApp;
use actix_web::dev::AppConfig;
use actix_web::error::DispatchError;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;

use super::{App, configure, edge};

/// Connections that wait to be accepted: what an on-sale's first second brings.
const BACKLOG: u32 = 8_192;
/// Connections of one worker that are served by HTTP; those taken away do not count. Further ones wait.
const CONNECTIONS_PER_WORKER: usize = 25_000;
/// How long requests in flight may take once the server is told to stop, seconds.
const SHUTDOWN_S: u64 = 10;

type Socket = Rc<RefCell<Option<TcpStream>>>;

/// See the module's opening.
struct Door(Socket);

/// Opens the door of the connection that a request came by.
pub(super) struct Key(Socket);

impl Key {
    /// The socket, once.
    pub(super) fn take(&self) -> Option<TcpStream> {
        self.0.borrow_mut().take()
    }
}

impl AsyncRead for Door {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Some(socket) => Pin::new(socket).poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Door {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.0.borrow_mut() {
            Some(socket) => Pin::new(socket).poll_write(context, bytes),
            None => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Some(socket) => Pin::new(socket).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.borrow_mut() {
            Some(socket) => Pin::new(socket).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

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
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let ending = ending.clone();
                async move { ending.notified().await }
            })
            .local_addr(address)
            .on_connect_ext(|door: &Door, data| {
                data.insert(Key(door.0.clone()));
            })
            .h1(map_config(service, |()| AppConfig::default()));
        fn_service(|socket: TcpStream| async move {
            let peer = socket.peer_addr().ok();
            Ok::<_, DispatchError>((Door(Rc::new(RefCell::new(Some(socket)))), peer))
        })
        .and_then(http)
    })?;
    Ok((builder.run(), address))
}
