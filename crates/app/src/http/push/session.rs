//! One open stream: frames are written as they come, and whoever is not there any more is noticed.
//!
//! There is one task for each, so it holds little: the socket, the subscription, a timer. What is read lies on the
//! stack and is gone before the task sleeps; frames are shared with everybody who gets the same.
//!
//! *Bounds.* A frame that cannot be written for [`STALL`] ends it, so does a second heartbeat that is not answered
//! (WebSocket), a message longer than [`MESSAGE_MAX`], and [`super::super::App`]'s end. Frames that wait are bounded by
//! the hub. Dropping the task drops the subscription, by which the room learns that the connection is gone.

use std::io;
use std::time::Duration;

use actix_http::ws::{OpCode, Parser};
use actix_web::rt::net::TcpStream;
use actix_web::web::BytesMut;
use boxoffice_engine::push::{End, Form, Next, Subscription};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::limits::Counted;

/// A heartbeat each, give or take a fifth.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// WebSocket: heartbeats without any answer after which nobody is there.
const UNANSWERED_MAX: u8 = 2;
/// How long a write may wait for the other side to read.
const STALL: Duration = Duration::from_secs(10);
/// How long the other side may take to close once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest message that is read, bytes. Clients have nothing to say.
const MESSAGE_MAX: usize = 1_024;

const PING: [u8; 2] = [0x89, 0];
const COMMENT: &[u8] = b":\n\n";
const NORMAL: u16 = 1_000;
const GOING_AWAY: u16 = 1_001;
const PROTOCOL_ERROR: u16 = 1_002;
const TRY_AGAIN_LATER: u16 = 1_013;

/// How it goes on after something was read.
enum Heard {
    Nothing,
    /// The pong to a ping.
    Answer(Vec<u8>),
    /// The other side closes, or breaks the protocol.
    Close(u16),
    Gone,
}

/// See the module's opening.
pub(super) struct Session {
    wire: TcpStream,
    subscription: Subscription,
    form: Form,
    /// A message that has begun.
    begun: BytesMut,
    unanswered: u8,
    _counted: Counted,
}

impl Session {
    pub(super) fn new(wire: TcpStream, subscription: Subscription, form: Form, counted: Counted) -> Self {
        Self { wire, subscription, form, begun: BytesMut::new(), unanswered: 0, _counted: counted }
    }

    pub(super) async fn run(mut self, head: Vec<u8>) {
        // Frames are small, and each is to be seen when it is sent.
        let _ = self.wire.set_nodelay(true);
        if write(&self.wire, &head).await.is_err() {
            return;
        }
        drop(head);
        // Whoever came together is not asked together.
        let mut beat_at = Instant::now() + HEARTBEAT.mul_f64(rand::random());
        loop {
            tokio::select! {
                next = self.subscription.next() => {
                    let written = match next {
                        Next::Frame(frame) => write(&self.wire, &frame).await,
                        Next::End(end) => return self.end(end).await,
                    };
                    if written.is_err() {
                        return;
                    }
                }
                ready = self.wire.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    match self.hear() {
                        Heard::Nothing => {}
                        Heard::Answer(pong) => if write(&self.wire, &pong).await.is_err() { return },
                        Heard::Close(code) => return self.close(code).await,
                        Heard::Gone => return,
                    }
                }
                () = sleep_until(beat_at) => {
                    beat_at = Instant::now() + HEARTBEAT.mul_f64(0.8 + 0.4 * rand::random::<f64>());
                    let beat: &[u8] = match self.form {
                        Form::Sse => COMMENT,
                        Form::WebSocket if self.unanswered >= UNANSWERED_MAX => return,
                        Form::WebSocket => {
                            self.unanswered += 1;
                            &PING
                        }
                    };
                    if write(&self.wire, beat).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Reads what there is.
    fn hear(&mut self) -> Heard {
        let mut buffer = [0; 512];
        let read = match self.wire.try_read(&mut buffer) {
            Ok(0) => return Heard::Gone,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(_) => return Heard::Gone,
        };
        self.unanswered = 0;
        if self.form == Form::Sse {
            return Heard::Nothing;
        }
        self.begun.extend_from_slice(read);
        let mut pongs = BytesMut::new();
        loop {
            match Parser::parse(&mut self.begun, true, MESSAGE_MAX) {
                Ok(Some((_, OpCode::Ping, payload))) => {
                    Parser::write_message(&mut pongs, payload.unwrap_or_default(), OpCode::Pong, true, false);
                }
                Ok(Some((_, OpCode::Close, _))) => return Heard::Close(NORMAL),
                // What clients say is not listened to.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Heard::Close(PROTOCOL_ERROR),
            }
        }
        if self.begun.is_empty() {
            // Its memory goes with it.
            self.begun = BytesMut::new();
        }
        if pongs.is_empty() { Heard::Nothing } else { Heard::Answer(pongs.to_vec()) }
    }

    async fn end(self, end: End) {
        match end {
            End::Over => self.close(NORMAL).await,
            End::Closing => self.close(GOING_AWAY).await,
            End::Slow => self.close(TRY_AGAIN_LATER).await,
        }
    }

    /// Says goodbye and lets the other side close, so that what was written last arrives.
    async fn close(self, code: u16) {
        let Self { mut wire, form, subscription, .. } = self;
        drop(subscription);
        let _ = timeout(FAREWELL, async move {
            if form == Form::WebSocket {
                let [high, low] = code.to_be_bytes();
                write(&wire, &[0x88, 2, high, low]).await?;
            }
            wire.shutdown().await?;
            loop {
                wire.readable().await?;
                match wire.try_read(&mut [0; 64]) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        })
        .await;
    }
}

/// Writes all of it.
async fn write(wire: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match wire.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => timeout(STALL, wire.writable()).await??,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
