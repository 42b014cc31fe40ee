//! One connection as the HTTP server sees it: one request at a time, and none that takes for ever.
//!
//! *One request.* Bytes of the next request are held back until the answer to this one was taken by the system. So each
//! answer is shaped by its own request (the HTTP server shapes it by the latest one that it has read), a pipeline that
//! is not read stands still, and what may lie in the server's buffers is one head and a piece of one body.
//!
//! *Deadlines.* A head must be there within `http.head_timeout_ms`, a body and the taking of an answer within their
//! time-outs and what [`Limits::bytes_per_s_min`] allows for their bytes. A head or a body that is late is answered 408,
//! an answer that is not taken ends with the connection. Between two requests the HTTP server's own keep-alive counts.
//!
//! *What is no HTTP* is never handed over. In its place the HTTP server gets [`IN_PLACE`], and [`super::super::edge`]
//! answers that with the [`Fault`] as a problem document.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::rt::net::TcpStream;
use actix_web::web::{Bytes, BytesMut};
use boxoffice_domain::UserId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::crowd::Place;
use super::framing::{self, Body, Head};
use crate::config::HttpSettings;
use crate::http::limits::InFlight;

/// What the HTTP server gets instead of a request that is none.
const IN_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
/// How long what is still sent is thrown away at the end: unread bytes would reset the connection, and with it the answer.
const LINGER: Duration = Duration::from_secs(1);
/// As much of it, bytes.
const LINGER_MAX: usize = 1 << 20;
/// An answer goes out in pieces of this size, bytes; the rest stays shared.
const PIECE: usize = 16 << 10;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    Malformed,
    HeadTooLarge,
    HeadLate,
    BodyLate,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    head: Duration,
    body: Duration,
    write: Duration,
    bytes_per_s_min: u64,
}

impl Limits {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        Self {
            head: Duration::from_millis(settings.head_timeout_ms),
            body: Duration::from_millis(settings.body_timeout_ms),
            write: Duration::from_millis(settings.write_timeout_ms),
            bytes_per_s_min: settings.bytes_per_s_min,
        }
    }

    /// What so many bytes may take.
    fn of(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1_000) / self.bytes_per_s_min.max(1))
    }
}

/// What the HTTP server's side and the answering side of a connection share. Both run on one thread.
#[derive(Default)]
pub(super) struct Shared {
    socket: RefCell<Option<TcpStream>>,
    place: RefCell<Option<Place>>,
    fault: Cell<Option<Fault>>,
    /// A request is being served.
    busy: Cell<bool>,
    /// Its answer was handed to the HTTP server as a whole.
    answered: Cell<bool>,
    /// When its last byte came, if that was after its head.
    whole_at: Cell<Option<Instant>>,
    /// Of the HTTP server's task, while it waits to read.
    reader: RefCell<Option<Waker>>,
    user: RefCell<Option<InFlight>>,
}

impl Shared {
    pub(super) fn new(socket: TcpStream, place: Place) -> Rc<Self> {
        Rc::new(Self { socket: RefCell::new(Some(socket)), place: RefCell::new(Some(place)), ..Self::default() })
    }

    pub(super) fn is_spare(&self) -> bool {
        self.place.borrow().as_ref().is_some_and(Place::is_spare)
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Ends a connection that has no request, to make room. False: it has one.
    pub(super) fn evict(&self) -> bool {
        if self.busy.get() {
            return false;
        }
        drop(self.socket.take());
        drop(self.place.take());
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        true
    }
}

/// Opens the door of the connection that a request came by.
#[derive(Clone)]
pub(crate) struct Key(Rc<Shared>);

impl Key {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        Self(shared.clone())
    }

    /// The socket and its place among all connections, once.
    pub(crate) fn take(&self) -> Option<(TcpStream, Option<Place>)> {
        Some((self.0.socket.take()?, self.0.place.take()))
    }

    /// Why the request that is answered now cannot be served.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.fault.get()
    }

    /// Looks at the connection's place among all, if it still has it.
    pub(crate) fn with_place<T>(&self, look: impl FnOnce(&Place) -> T) -> Option<T> {
        self.0.place.borrow().as_ref().map(look)
    }

    /// When the request was there as a whole, if its body came after its head.
    pub(crate) fn whole_at(&self) -> Option<Instant> {
        self.0.whole_at.get()
    }

    /// The request counts as its user's until its answer is gone.
    pub(crate) fn count(&self, user: InFlight) {
        self.0.user.replace(Some(user));
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        self.0.user.borrow().as_ref().map(InFlight::user)
    }

    /// An answer's body, by whose end the door knows that the next request may come.
    pub(crate) fn answer(&self, body: BoxBody) -> BoxBody {
        let content = match body.try_into_bytes() {
            Ok(bytes) => Content::Bytes(bytes),
            Err(stream) => Content::Stream(stream),
        };
        BoxBody::new(Answer { content, shared: self.0.clone() })
    }
}

enum Content {
    Bytes(Bytes),
    Stream(BoxBody),
}

/// See [`Key::answer`]. The HTTP server copies each piece that it is given and asks for the next one when that is gone:
/// a big answer is shared by all who read it, however slowly.
struct Answer {
    content: Content,
    shared: Rc<Shared>,
}

impl MessageBody for Answer {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        match &self.content {
            Content::Bytes(bytes) => BodySize::Sized(bytes.len() as u64),
            Content::Stream(stream) => stream.size(),
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Bytes(bytes) => {
                let piece = bytes.len().min(PIECE);
                Poll::Ready(Some(Ok(bytes.split_to(piece))))
            }
            Content::Stream(stream) => Pin::new(stream).poll_next(context),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.answered.set(true);
    }
}

/// A timer that exists while something is waited for.
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
    /// A head is to come.
    Head,
    Body(Body),
    /// The request is there; what follows is held back until it is answered.
    Answering,
    /// Nothing is read any more.
    Over,
}

/// See the module's opening.
pub(super) struct Door {
    shared: Rc<Shared>,
    limits: Limits,
    stage: Stage,
    /// Read and not yet handed over.
    held: BytesMut,
    /// So many of the first bytes in `held` may be handed over.
    passed: usize,
    /// A head that began, or a connection without one: until when.
    head_by: Option<Instant>,
    body_since: Instant,
    /// Bytes of this body, with what frames it.
    body_bytes: u64,
    /// Set once a body that is not whole was answered: until when the rest is thrown away.
    rest_by: Option<Instant>,
    /// `held` has bytes that were not looked at since the stage changed.
    unjudged: bool,
    /// The answer to this request is the last.
    is_last: bool,
    reading: Alarm,
    /// Since when the peer has not taken this answer as fast as it came, and what it took since.
    unread: Option<(Instant, u64)>,
    writing: Alarm,
    /// While what a peer still sends is thrown away: until when, and how much.
    lingering: Option<(Instant, usize)>,
    /// The peer has sent more than was asked for.
    has_more: bool,
}

impl Door {
    pub(super) fn new(shared: Rc<Shared>, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            shared,
            limits,
            stage: Stage::Head,
            held: BytesMut::new(),
            passed: 0,
            head_by: Some(now + limits.head),
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

    pub(super) fn key(&self) -> Key {
        Key::new(&self.shared)
    }

    /// How many of `bytes`, which are the next ones, may be handed over; `None`: their head is not whole yet.
    fn judge(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.stage {
            Stage::Head => match framing::head(bytes) {
                Head::Whole(length, body) => {
                    self.begin(body);
                    Some(length + self.body(&bytes[length..]))
                }
                Head::Partial => None,
                Head::TooLarge => Some(self.refuse(Fault::HeadTooLarge)),
                Head::Malformed => Some(self.refuse(Fault::Malformed)),
            },
            Stage::Body(_) => Some(self.body(bytes)),
            Stage::Answering | Stage::Over => Some(0),
        }
    }

    fn begin(&mut self, body: Body) {
        self.shared.busy.set(true);
        self.shared.answered.set(false);
        self.shared.whole_at.set(None);
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
            // It cannot be known where the next request would begin. The handler is told that the body is cut off.
            (self.stage, self.has_more) = (Stage::Over, true);
            return 0;
        };
        self.body_bytes += taken as u64;
        if body.is_whole() {
            self.reading.stop();
        }
        self.stage = match () {
            () if !body.is_whole() => Stage::Body(body),
            // It was answered before it was whole.
            () if self.rest_by.is_some() => Stage::Head,
            () => Stage::Answering,
        };
        self.unjudged = self.stage == Stage::Head;
        if self.stage == Stage::Answering && self.body_bytes > taken as u64 {
            self.shared.whole_at.set(Some(Instant::now()));
        }
        taken
    }

    /// What comes in the place of what is no request.
    fn refuse(&mut self, fault: Fault) -> usize {
        self.begin(Body::Length(0));
        self.shared.fault.set(Some(fault));
        (self.stage, self.is_last, self.has_more) = (Stage::Answering, true, true);
        self.held.clear();
        self.held.extend_from_slice(IN_PLACE);
        self.passed = IN_PLACE.len();
        0
    }

    /// After some more was put into `held`, or the stage has changed.
    fn judge_held(&mut self) {
        self.unjudged = false;
        let held = std::mem::take(&mut self.held);
        let passed = self.judge(&held);
        if self.held.is_empty() {
            // Nothing was put in its place.
            self.held = held;
            self.passed = passed.unwrap_or(0);
        }
    }

    /// The answer is gone: the next request may come.
    fn go_on(&mut self, socket: &TcpStream, context: &mut Context<'_>) {
        self.unread = None;
        self.writing.stop();
        drop(self.shared.user.take());
        self.shared.busy.set(false);
        match self.stage {
            Stage::Answering if self.is_last => self.stage = Stage::Over,
            Stage::Answering => (self.stage, self.unjudged) = (Stage::Head, true),
            Stage::Body(_) => self.rest_by = Some(Instant::now() + LINGER),
            Stage::Head | Stage::Over => {}
        }
        // Usually nothing has come yet, and then to be woken when it does is all.
        if !self.held.is_empty() || self.stage != Stage::Head || socket.poll_read_ready(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    /// Until when the other side must have sent something.
    fn read_by(&mut self) -> Option<Instant> {
        match self.stage {
            Stage::Head => {
                if self.head_by.is_none() && !self.held.is_empty() {
                    self.head_by = Some(Instant::now() + self.limits.head);
                }
                self.head_by
            }
            Stage::Body(_) => {
                let by = self.body_since + self.limits.body + self.limits.of(self.body_bytes);
                Some(self.rest_by.map_or(by, |rest_by| rest_by.min(by)))
            }
            Stage::Answering | Stage::Over => None,
        }
    }

    fn late(&mut self) {
        match self.stage {
            Stage::Head if !self.held.is_empty() => _ = self.refuse(Fault::HeadLate),
            Stage::Body(_) => {
                self.shared.fault.set(Some(Fault::BodyLate));
                (self.stage, self.has_more) = (Stage::Over, true);
            }
            _ => self.stage = Stage::Over,
        }
    }
}

impl AsyncRead for Door {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shared = this.shared.clone();
        let mut socket = shared.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(())) };
        loop {
            if this.passed > 0 {
                let count = this.passed.min(buffer.remaining());
                buffer.put_slice(&this.held.split_to(count));
                this.passed -= count;
                if this.held.is_empty() {
                    this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Answering => {
                    // Woken by `go_on`, which runs in this task.
                    return Poll::Pending;
                }
                Stage::Head if this.unjudged && !this.held.is_empty() => {
                    this.judge_held();
                    continue;
                }
                Stage::Head | Stage::Body(_) => {}
            }
            let before = buffer.filled().len();
            let read = if this.held.is_empty() {
                // Mostly a request comes as a whole, and is read to where it is wanted.
                match Pin::new(&mut *socket).poll_read(context, buffer) {
                    Poll::Ready(Ok(())) => {
                        let read = buffer.filled().len() - before;
                        let passed = this.judge(&buffer.filled()[before..]);
                        if this.passed > 0 {
                            buffer.set_filled(before);
                            continue;
                        }
                        let passed_here = passed.unwrap_or(0);
                        this.held.extend_from_slice(&buffer.filled()[before + passed_here..]);
                        buffer.set_filled(before + passed_here);
                        if passed_here > 0 || read == 0 || this.stage == Stage::Over {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                    other => other,
                }
            } else {
                let mut scratch = [MaybeUninit::uninit(); 4_096];
                let mut scratch = ReadBuf::uninit(&mut scratch);
                match Pin::new(&mut *socket).poll_read(context, &mut scratch) {
                    Poll::Ready(Ok(())) if scratch.filled().is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => {
                        let ends_a_line = scratch.filled().contains(&b'\n');
                        this.held.extend_from_slice(scratch.filled());
                        // A head ends with a line.
                        if ends_a_line || this.held.len() > framing::HEAD_MAX {
                            this.judge_held();
                        }
                        continue;
                    }
                    other => other,
                }
            };
            if read.is_pending() {
                if this.read_by().is_some_and(|by| this.reading.poll(by, context)) {
                    this.late();
                    continue;
                }
                if shared.is_spare() {
                    shared.reader.replace(Some(context.waker().clone()));
                }
            }
            return read;
        }
    }
}

impl AsyncWrite for Door {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut socket = this.shared.socket.borrow_mut();
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
                if this.writing.poll(since + this.limits.write + this.limits.of(taken), context) {
                    // What lies in the system's buffers goes at once, too.
                    let _ = socket.set_zero_linger();
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending
            }
            failed => failed,
        }
    }

    /// Called once all bytes so far were taken.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shared = this.shared.clone();
        let mut socket = shared.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Ok(())) };
        ready!(Pin::new(&mut *socket).poll_flush(context))?;
        if shared.answered.take() {
            this.go_on(socket, context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut socket = this.shared.socket.borrow_mut();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_handed_over_in_pieces_of_the_one_copy() {
        let map: Bytes = (0..100_000).map(|n| n as u8).collect::<Vec<_>>().into();
        let memory = map.as_ptr_range();
        for length in [0, 1, PIECE, PIECE + 1, map.len()] {
            let shared = Rc::new(Shared::default());
            let mut body = Key(shared.clone()).answer(BoxBody::new(map.slice(..length)));
            assert_eq!(body.size(), BodySize::Sized(length as u64));
            let (mut read, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
            while let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut body).poll_next(&mut context) {
                assert!(piece.len() <= PIECE && memory.contains(&piece.as_ptr()), "a piece is no copy");
                read.extend_from_slice(&piece);
            }
            assert!(read == map[..length], "{length}");
            assert!(!shared.answered.get());
            drop(body);
            assert!(shared.answered.get());
        }
    }
}
