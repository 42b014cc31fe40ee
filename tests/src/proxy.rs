//! A TCP proxy between a server and one of its parts, which a test can make hang: connections are accepted, open ones
//! stay open, and no byte passes in either direction.
//!
//! It hangs at once ([`Proxy::hang`]), or when a client sends certain bytes: before they pass ([`Proxy::hang_before`]) or
//! after ([`Proxy::hang_behind`]). When it goes on, what was held back passes; or it never does, as when a network has
//! lost the connection without closing it ([`Proxy::go_on_anew`]).

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// Listens on a free port of the loopback address until it is dropped, and its connections with it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    /// The part's.
    port: u16,
    passing: watch::Sender<Passing>,
    /// How many connections were accepted.
    made: AtomicU64,
    /// Raised to close all connections that are open.
    cuts: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
}

/// Which connections pass bytes on.
#[derive(Clone, Copy)]
struct Passing {
    now: bool,
    /// Connections with a lower number never do.
    from: u64,
}

/// The bytes from a client that make it hang.
#[derive(Clone, Copy)]
struct Trap {
    bytes: &'static [u8],
    they_pass: bool,
}

impl Proxy {
    /// In front of a port of the loopback address.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let passing = watch::Sender::new(Passing { now: true, from: 0 });
        let shared = Arc::new(Shared { port, passing, made: AtomicU64::new(0), cuts: watch::Sender::new(0), trap: Mutex::default() });
        let listening = tokio::spawn(listen(listener, shared.clone()));
        Self { port: own, shared, listening }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn hang(&self) {
        self.shared.pass(false);
    }

    /// Hangs when a client sends `bytes`, which do not pass.
    pub fn hang_before(&self, bytes: &'static [u8]) {
        self.shared.set(Trap { bytes, they_pass: false });
    }

    /// Hangs when a client sends `bytes`, which pass; the answer to them does not.
    pub fn hang_behind(&self, bytes: &'static [u8]) {
        self.shared.set(Trap { bytes, they_pass: true });
    }

    /// Returns once it hangs.
    pub async fn hangs(&self) {
        // It fails when the sender is gone, which lives as long as this does.
        let _ = self.shared.passing.subscribe().wait_for(|passing| !passing.now).await;
    }

    pub fn go_on(&self) {
        self.shared.pass(true);
    }

    /// Lets new connections pass. Those that are open stay open, and no byte ever passes over them again.
    pub fn go_on_anew(&self) {
        let made = self.shared.made.load(Ordering::SeqCst);
        self.shared.passing.send_replace(Passing { now: true, from: made });
    }

    /// Closes all connections, and drops what they held back.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Shared {
    fn pass(&self, now: bool) {
        self.passing.send_modify(|passing| passing.now = now);
    }

    fn set(&self, trap: Trap) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
    }

    /// Springs the trap if `sent` contains its bytes; whether these still pass.
    fn springs(&self, sent: &[u8]) -> bool {
        let springs = |trap: &mut Trap| sent.windows(trap.bytes.len()).any(|bytes| bytes == trap.bytes);
        let sprung = self.trap.lock().unwrap_or_else(PoisonError::into_inner).take_if(springs);
        if sprung.is_some() {
            self.pass(false);
        }
        sprung.is_some_and(|trap| trap.they_pass)
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(serve(client, shared.clone()));
    }
}

/// One connection, until either side or [`Proxy::cut`] ends it.
async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let (mut cuts, number) = (shared.cuts.subscribe(), shared.made.fetch_add(1, Ordering::SeqCst));
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.port)).await?;
    // The proxy adds no delay.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        ended = pass(&shared, number, from_client, to_server, true) => ended,
        ended = pass(&shared, number, from_server, to_client, false) => ended,
        _ = cuts.changed() => Ok(()),
    }
}

async fn pass(shared: &Shared, number: u64, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_client: bool) -> io::Result<()> {
    let (mut passing, mut piece) = (shared.passing.subscribe(), vec![0; PIECE]);
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        let passes = is_client && shared.springs(&piece[..count]);
        if !passes && passing.wait_for(|passing| passing.now && number >= passing.from).await.is_err() {
            return Ok(());
        }
        to.write_all(&piece[..count]).await?;
    }
}
