//! One connection as the HTTP server sees it: one request at a time, and none without a time-out.
//!
//! *One request.* Bytes of the next request are held back until the system has taken the answer to this one. So each
//! answer is shaped by its own request (the HTTP server shapes it by the latest one that it has read), a pipeline whose
//! answers are not read stops, and the server's buffers hold at most one head and a piece of one body.
//!
//! *Deadlines.* A head must arrive within `http.head_timeout_ms`; a body must arrive and an answer must be taken within
//! their time-outs plus the time that `http.bytes_per_s_min` allows for their bytes. A late head or body is answered 408,
//! an answer that is not taken ends the connection. Between requests the HTTP server's own keep-alive counts.
//!
//! *Malformed requests* are never passed on. The HTTP server gets [`SUBSTITUTE`] instead, and [`super::super::edge`]
//! answers that with the [`RequestFault`] as a problem document.
//!
//! *Detached.* Once a handler has taken the socket ([`super::connection::ConnectionHandle`]), the HTTP server reads the
//! end of its input, and what it writes is discarded.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::web::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Connection, ConnectionHandle, RequestFault};
use super::framing::{self, Body, Head};
use super::timeouts::Timeouts;

/// What the HTTP server gets instead of a malformed request.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
/// How long input is discarded at the end: unread bytes would reset the connection, and with it the answer.
const LINGER: Duration = Duration::from_secs(1);
/// The most input that is discarded, bytes.
const LINGER_MAX: usize = 1 << 20;

/// A timer that exists only while it is needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `at` has come; otherwise the task is woken then.
    fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context).is_ready()
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A head is awaited.
    Head,
    Body(Body),
    /// The request is whole; what follows is held back until it is answered.
    Answering,
    /// No more is read.
    Over,
}

/// See the module's opening.
pub(super) struct DetachableSocket {
    connection: Rc<Connection>,
    timeouts: Timeouts,
    stage: Stage,
    /// Read and not yet passed on.
    held: BytesMut,
    /// How many of the first bytes in `held` may be passed on.
    passed: usize,
    /// The deadline of a head that began, or of a connection's first one.
    head_by: Option<Instant>,
    body_since: Instant,
    /// Bytes of this body, its framing included.
    body_bytes: u64,
    /// Set when an unfinished body was answered: until when the rest is discarded.
    rest_by: Option<Instant>,
    /// `held` has bytes that were not judged since the stage changed.
    unjudged: bool,
    /// The connection ends with this answer.
    is_last: bool,
    reading: Alarm,
    /// Since when the peer takes this answer more slowly than it is written, and the bytes it took since.
    unread: Option<(Instant, u64)>,
    writing: Alarm,
    /// While input is discarded at the end: until when, and how many bytes so far.
    lingering: Option<(Instant, usize)>,
    /// The peer has sent more than was read.
    has_more: bool,
}

impl DetachableSocket {
    pub(super) fn new(connection: Rc<Connection>, timeouts: Timeouts) -> Self {
        let now = Instant::now();
        Self {
            connection,
            timeouts,
            stage: Stage::Head,
            held: BytesMut::new(),
            passed: 0,
            head_by: Some(now + timeouts.head),
            body_since: now,
            body_bytes: 0,
            rest_by: None,
            unjudged: false,
            is_last: false,
            reading: Alarm::default(),
            unread: None,
            writing: Alarm::default(),
            lingering: None,
            has_more: false,
        }
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(self.connection.clone())
    }

    /// How many of the next `bytes` may be passed on; `None`: their head is not whole yet.
    fn judge(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.stage {
            Stage::Head => match framing::head(bytes) {
                Head::Whole(length, body) => {
                    self.begin(body);
                    Some(length + self.body(&bytes[length..]))
                }
                Head::Partial => None,
                Head::TooLarge => Some(self.refuse(RequestFault::HeadTooLarge)),
                Head::Malformed => Some(self.refuse(RequestFault::Malformed)),
            },
            Stage::Body(_) => Some(self.body(bytes)),
            Stage::Answering | Stage::Over => Some(0),
        }
    }

    fn begin(&mut self, body: Body) {
        self.connection.busy.set(true);
        self.connection.answered.set(false);
        self.connection.whole_at.set(None);
        self.reading.stop();
        self.head_by = None;
        self.rest_by = None;
        (self.body_since, self.body_bytes) = (Instant::now(), 0);
        self.stage = Stage::Body(body);
    }

    /// How many of `bytes` belong to the body.
    fn body(&mut self, bytes: &[u8]) -> usize {
        let Stage::Body(mut body) = self.stage else { return 0 };
        let Ok(taken) = body.advance(bytes) else {
            // Where the next request would begin is unknown. The handler sees a body that ends too early.
            (self.stage, self.has_more) = (Stage::Over, true);
            return 0;
        };
        self.body_bytes += taken as u64;
        if body.is_whole() {
            self.reading.stop();
        }
        self.stage = match () {
            () if !body.is_whole() => Stage::Body(body),
            // Answered before it was whole.
            () if self.rest_by.is_some() => Stage::Head,
            () => Stage::Answering,
        };
        self.unjudged = self.stage == Stage::Head;
        if self.stage == Stage::Answering && self.body_bytes > taken as u64 {
            self.connection.whole_at.set(Some(Instant::now()));
        }
        taken
    }

    /// Passes on the substitute for a request that cannot be served.
    fn refuse(&mut self, fault: RequestFault) -> usize {
        self.begin(Body::Length(0));
        self.connection.fault.set(Some(fault));
        (self.stage, self.is_last, self.has_more) = (Stage::Answering, true, true);
        self.held.clear();
        self.held.extend_from_slice(SUBSTITUTE);
        self.passed = SUBSTITUTE.len();
        0
    }

    /// After `held` grew or the stage changed.
    fn judge_held(&mut self) {
        self.unjudged = false;
        let held = std::mem::take(&mut self.held);
        let passed = self.judge(&held);
        if self.held.is_empty() {
            // No substitute was passed on.
            self.held = held;
            self.passed = passed.unwrap_or(0);
        }
    }

    /// The answer has been sent: the next request may come.
    fn next_request(&mut self, socket: &TcpStream, context: &mut Context<'_>) {
        self.unread = None;
        self.writing.stop();
        drop(self.connection.request.take());
        self.connection.busy.set(false);
        match self.stage {
            Stage::Answering if self.is_last => self.stage = Stage::Over,
            Stage::Answering => (self.stage, self.unjudged) = (Stage::Head, true),
            Stage::Body(_) => self.rest_by = Some(Instant::now() + LINGER),
            Stage::Head | Stage::Over => {}
        }
        // Usually nothing has arrived yet, and the task only has to be woken when it does.
        if !self.held.is_empty() || self.stage != Stage::Head || socket.poll_read_ready(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    /// The deadline of the next input.
    fn read_by(&mut self) -> Option<Instant> {
        match self.stage {
            Stage::Head => {
                if self.head_by.is_none() && !self.held.is_empty() {
                    self.head_by = Some(Instant::now() + self.timeouts.head);
                }
                self.head_by
            }
            Stage::Body(_) => {
                let by = self.body_since + self.timeouts.body + self.timeouts.of(self.body_bytes);
                Some(self.rest_by.map_or(by, |rest_by| rest_by.min(by)))
            }
            Stage::Answering | Stage::Over => None,
        }
    }

    fn late(&mut self) {
        match self.stage {
            Stage::Head if !self.held.is_empty() => _ = self.refuse(RequestFault::HeadLate),
            Stage::Body(_) => {
                self.connection.fault.set(Some(RequestFault::BodyLate));
                (self.stage, self.has_more) = (Stage::Over, true);
            }
            _ => self.stage = Stage::Over,
        }
    }

    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.passed.min(buffer.remaining());
        buffer.put_slice(&self.held.split_to(count));
        self.passed -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Reads straight into the HTTP server's buffer: mostly a request arrives whole. True: bytes were passed on, or the
    /// input has ended.
    fn read_through(&mut self, socket: &mut TcpStream, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(socket).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let passed = self.judge(&buffer.filled()[before..]).unwrap_or(0);
        if self.passed > 0 {
            buffer.set_filled(before);
            return Poll::Ready(Ok(false));
        }
        self.held.extend_from_slice(&buffer.filled()[before + passed..]);
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0 || read == 0 || self.stage == Stage::Over))
    }

    /// Reads more of what is held. True: the input has ended.
    fn read_held(&mut self, socket: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = [MaybeUninit::uninit(); 4_096];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(socket).poll_read(context, &mut scratch))?;
        if scratch.filled().is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(scratch.filled());
        // A head ends with a line.
        if scratch.filled().contains(&b'\n') || self.held.len() > framing::HEAD_MAX {
            self.judge_held();
        }
        Poll::Ready(Ok(false))
    }
}

impl AsyncRead for DetachableSocket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let connection = this.connection.clone();
        let mut socket = connection.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(())) };
        loop {
            if this.passed > 0 {
                this.pass_on(buffer);
                return Poll::Ready(Ok(()));
            }
            match this.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                // Woken by `next_request`, which runs in this task.
                Stage::Answering => return Poll::Pending,
                Stage::Head if this.unjudged && !this.held.is_empty() => {
                    this.judge_held();
                    continue;
                }
                Stage::Head | Stage::Body(_) => {}
            }
            let read = if this.held.is_empty() { this.read_through(socket, context, buffer) } else { this.read_held(socket, context) };
            match read {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            if this.read_by().is_some_and(|by| this.reading.poll(by, context)) {
                this.late();
                continue;
            }
            if connection.is_spare() {
                connection.reader.replace(Some(context.waker().clone()));
            }
            return Poll::Pending;
        }
    }
}

impl AsyncWrite for DetachableSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut socket = this.connection.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(bytes.len())) };
        match Pin::new(&mut *socket).poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                if let Some((_, taken)) = &mut this.unread {
                    *taken += written as u64;
                }
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                let (since, taken) = *this.unread.get_or_insert_with(|| (Instant::now(), 0));
                if this.writing.poll(since + this.timeouts.write + this.timeouts.of(taken), context) {
                    // The system's buffers are discarded at once, too.
                    let _ = socket.set_zero_linger();
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
            failed => failed,
        }
    }

    /// Called when all bytes so far are written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let connection = this.connection.clone();
        let mut socket = connection.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(&mut *socket).poll_flush(context))?;
        if connection.answered.take() {
            this.next_request(socket, context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut socket = this.connection.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(())) };
        let (until, mut discarded) = match this.lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut *socket).poll_shutdown(context))?;
                this.has_more |= !this.held.is_empty() || matches!(this.stage, Stage::Body(_));
                (Instant::now() + LINGER, 0)
            }
        };
        loop {
            let mut scratch = [MaybeUninit::uninit(); 4_096];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut *socket).poll_read(context, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() && discarded < LINGER_MAX => {
                    discarded += scratch.filled().len();
                    this.has_more = true;
                }
                Poll::Pending if this.has_more => {
                    this.lingering = Some((until, discarded));
                    return if this.reading.poll(until, context) { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
