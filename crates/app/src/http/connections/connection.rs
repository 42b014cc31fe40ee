//! The state of one connection, shared by the HTTP server's socket and the handler of its request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use actix_web::rt::net::TcpStream;
use boxoffice_domain::UserId;
use tokio::time::Instant;

use super::capacity::ConnectionPermit;
use crate::http::limits::RequestPermit;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestFault {
    Malformed,
    HeadTooLarge,
    HeadLate,
    BodyLate,
}

/// The state that the HTTP server's side and the handler's side of a connection share. Both run on one thread.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) socket: RefCell<Option<TcpStream>>,
    permit: RefCell<Option<ConnectionPermit>>,
    pub(super) fault: Cell<Option<RequestFault>>,
    /// A request is being served.
    pub(super) busy: Cell<bool>,
    /// The HTTP server has taken its whole answer.
    pub(super) answered: Cell<bool>,
    /// When its last byte arrived, if that was after its head.
    pub(super) whole_at: Cell<Option<Instant>>,
    /// Of the HTTP server's task, while it waits to read.
    pub(super) reader: RefCell<Option<Waker>>,
    pub(super) request: RefCell<Option<RequestPermit>>,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, permit: ConnectionPermit) -> Rc<Self> {
        Rc::new(Self { socket: RefCell::new(Some(socket)), permit: RefCell::new(Some(permit)), ..Self::default() })
    }

    pub(super) fn is_spare(&self) -> bool {
        self.permit.borrow().as_ref().is_some_and(ConnectionPermit::is_spare)
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Ends a connection without a request, to make room. False: it has one.
    pub(super) fn evict(&self) -> bool {
        if self.busy.get() {
            return false;
        }
        drop(self.socket.take());
        drop(self.permit.take());
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        true
    }
}

/// The connection of a request, for its handler.
#[derive(Clone)]
pub(crate) struct ConnectionHandle(pub(super) Rc<Connection>);

impl ConnectionHandle {
    /// Takes the socket and its permit away from the HTTP server, once.
    pub(crate) fn detach(&self) -> Option<(TcpStream, Option<ConnectionPermit>)> {
        Some((self.0.socket.take()?, self.0.permit.take()))
    }

    /// Why the current request cannot be served.
    pub(crate) fn fault(&self) -> Option<RequestFault> {
        self.0.fault.get()
    }

    /// Reads the connection's permit, if it is not detached.
    pub(crate) fn with_permit<T>(&self, read: impl FnOnce(&ConnectionPermit) -> T) -> Option<T> {
        self.0.permit.borrow().as_ref().map(read)
    }

    /// When the request had arrived whole, if its body came after its head.
    pub(crate) fn whole_at(&self) -> Option<Instant> {
        self.0.whole_at.get()
    }

    /// Counts the request for its user until its answer has been sent.
    pub(crate) fn count(&self, permit: RequestPermit) {
        self.0.request.replace(Some(permit));
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        self.0.request.borrow().as_ref().map(RequestPermit::user)
    }
}
