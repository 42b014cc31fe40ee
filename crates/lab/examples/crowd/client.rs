//! The waiters: client processes, each with its share of the waiters and source addresses of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};
use uuid::Uuid;

use crate::servers::{Servers, bearer};
use crate::{Counted, Via};

/// Connections of one process that may be opening at the same time, and connections that join.
const AT_ONCE: usize = 32;
/// Connections that the pollers of one process share, as clients behind a proxy do.
const POLLING: usize = 8;

/// The task of a client process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    addresses: Vec<String>,
    concert: String,
    waiters: usize,
    via: Via,
    source: Ipv4Addr,
}

/// All client processes.
pub(crate) struct Crowd {
    clients: Vec<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Crowd {
    /// Returns when all waiters have joined.
    pub(crate) async fn join(servers: &Servers, waiters: usize, processes: usize, via: Via) -> Result<Self> {
        let mut crowd = Self { clients: Vec::new() };
        for at in 0..processes {
            let share = waiters / processes + usize::from(at < waiters % processes);
            let task = Task {
                addresses: servers.addresses.clone(),
                concert: servers.concert.clone(),
                waiters: share,
                via,
                source: Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(at)?),
            };
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--client", &serde_json::to_string(&task)?]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn()?;
            let (stdin, stdout) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
            crowd.clients.push((child, stdin, BufReader::new(stdout).lines()));
        }
        crowd.await_all("joined").await?;
        Ok(crowd)
    }

    pub(crate) async fn connect(mut self) -> Result<Self> {
        self.send_all("connect").await?;
        self.await_all("connected").await?;
        Ok(self)
    }

    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.send_all("begin").await?;
        self.await_all("began").await
    }

    pub(crate) async fn end(mut self) -> Result<Counted> {
        self.send_all("end").await?;
        let mut all = Counted::default();
        for (_, _, lines) in &mut self.clients {
            let line = lines.next_line().await?.context("a client has ended")?;
            all.add(serde_json::from_str(&line)?);
        }
        Ok(all)
    }

    async fn send_all(&mut self, order: &str) -> Result<()> {
        for (_, stdin, _) in &mut self.clients {
            stdin.write_all(format!("{order}\n").as_bytes()).await?;
            stdin.flush().await?;
        }
        Ok(())
    }

    async fn await_all(&mut self, expected: &str) -> Result<()> {
        for (_, _, lines) in &mut self.clients {
            match lines.next_line().await? {
                Some(line) if line == expected => {}
                other => bail!("a client process wrote {other:?} instead of {expected:?}"),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counters {
    open: AtomicU64,
    bytes: AtomicU64,
    messages: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    fn now(&self) -> Counted {
        let [open, bytes, messages, requests, failed] =
            [&self.open, &self.bytes, &self.messages, &self.requests, &self.failed].map(|counter| counter.load(Ordering::Relaxed));
        Counted { open, bytes, messages, requests, failed }
    }
}

/// A client process.
pub(crate) async fn run(task: Task) -> Result<()> {
    let task = Arc::new(task);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let waiters = join(&task).await?;
    println!("joined");
    let counters = Arc::<Counters>::default();
    expect(&mut orders, "connect").await?;
    // Kept to the end: dropping a waiter closes its connection.
    let _connected = match task.via.every_s() {
        None => connect(&task, waiters, &counters).await?,
        Some(every_s) => poll(&task, waiters, every_s, &counters),
    };
    println!("connected");
    expect(&mut orders, "begin").await?;
    let before = counters.now();
    println!("began");
    expect(&mut orders, "end").await?;
    let after = counters.now();
    let counted = Counted {
        open: after.open,
        bytes: after.bytes - before.bytes,
        messages: after.messages - before.messages,
        requests: after.requests - before.requests,
        failed: after.failed,
    };
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}

async fn expect(orders: &mut Lines<BufReader<tokio::io::Stdin>>, expected: &str) -> Result<()> {
    match orders.next_line().await? {
        Some(line) if line == expected => Ok(()),
        other => bail!("the order {other:?} came instead of {expected:?}"),
    }
}

struct Waiter {
    bearer: String,
    token: String,
    address: String,
}

async fn join(task: &Arc<Task>) -> Result<Vec<Waiter>> {
    let mut joining = JoinSet::new();
    for at in 0..AT_ONCE {
        let task = task.clone();
        joining.spawn(async move {
            let address = task.addresses[at % task.addresses.len()].clone();
            let mut connection = Connection::open(&address, Some(task.source)).await?;
            let mut waiters = Vec::new();
            for _ in (at..task.waiters).step_by(AT_ONCE) {
                let bearer = bearer(Uuid::new_v8(rand::random()), false)?;
                let concert = &task.concert;
                let request = format!("POST /api/v1/concerts/{concert}/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Length: 0\r\n\r\n");
                let answer = connection.send(request.as_bytes()).await?;
                if answer.status != 201 {
                    bail!("joining: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
                }
                let place: serde_json::Value = serde_json::from_slice(&answer.body)?;
                let token = place["token"].as_str().context("no token")?.to_owned();
                waiters.push(Waiter { bearer, token, address: address.clone() });
            }
            Ok(waiters)
        });
    }
    let mut waiters = Vec::with_capacity(task.waiters);
    while let Some(some) = joining.join_next().await {
        waiters.extend(some??);
    }
    Ok(waiters)
}

/// Opens a connection for each waiter and reads it to its end.
async fn connect(task: &Arc<Task>, waiters: Vec<Waiter>, counters: &Arc<Counters>) -> Result<JoinSet<()>> {
    let opening = Arc::new(Semaphore::new(AT_ONCE));
    let mut listening = JoinSet::new();
    for waiter in waiters {
        let turn = opening.clone().acquire_owned().await?;
        let (task, counters) = (task.clone(), counters.clone());
        listening.spawn(async move {
            let opened = open(&task, &waiter).await;
            drop(turn);
            match opened {
                Ok(stream) => {
                    counters.open.fetch_add(1, Ordering::Relaxed);
                    listen(stream, &counters, task.via).await;
                    counters.open.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error) => {
                    if counters.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("connecting: {error:#}");
                    }
                }
            }
        });
    }
    let _ = opening.acquire_many(AT_ONCE as u32).await?;
    Ok(listening)
}

async fn open(task: &Task, waiter: &Waiter) -> Result<TcpStream> {
    let Waiter { token, address, .. } = waiter;
    let request = match task.via {
        Via::Socket => format!(
            "GET /api/v1/queue/socket?token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        _ => format!("GET /api/v1/queue/stream?token={token} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"),
    };
    let mut stream = dial(address, Some(task.source)).await?;
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut byte) = (Vec::with_capacity(512), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await? == 0 || head.len() > 8_192 {
            bail!("the server closed the connection after {:?}", String::from_utf8_lossy(&head));
        }
        head.push(byte[0]);
    }
    let status = if task.via == Via::Socket { "101" } else { "200" };
    if !head.starts_with(format!("HTTP/1.1 {status}").as_bytes()) {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    Ok(stream)
}

/// Counts messages and answers pings.
async fn listen(mut stream: TcpStream, counters: &Counters, via: Via) {
    const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
    let mut bytes = [0; 1_024];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        // Only the bytes that have arrived.
        match stream.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                counters.bytes.fetch_add(count as u64, Ordering::Relaxed);
                counters.messages.fetch_add(1, Ordering::Relaxed);
                // A ping without a payload, alone or after a frame.
                if via == Via::Socket && bytes[..count].ends_with(&[0x89, 0x00]) && stream.write_all(&PONG).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Each waiter polls once in `every_s`, over shared connections.
fn poll(task: &Arc<Task>, waiters: Vec<Waiter>, every_s: u64, counters: &Arc<Counters>) -> JoinSet<()> {
    let mut polling = JoinSet::new();
    let mut shares: Vec<Vec<Waiter>> = (0..POLLING * task.addresses.len()).map(|_| Vec::new()).collect();
    let count = shares.len();
    for (at, waiter) in waiters.into_iter().enumerate() {
        shares[at % count].push(waiter);
    }
    for (nth, share) in shares.into_iter().enumerate() {
        let (task, counters) = (task.clone(), counters.clone());
        polling.spawn(async move {
            if let Err(error) = poll_in_turn(&task, &share, nth, every_s, &counters).await {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("polling: {error:#}");
            }
        });
    }
    polling
}

async fn poll_in_turn(task: &Task, waiters: &[Waiter], nth: usize, every_s: u64, counters: &Counters) -> Result<()> {
    if waiters.is_empty() {
        return Ok(());
    }
    let address = &task.addresses[nth % task.addresses.len()];
    let requests: Vec<String> = waiters
        .iter()
        .map(|Waiter { bearer, token, .. }| match task.via {
            Via::Empty10 => "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            _ => format!("GET /api/v1/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nQueue-Token: {token}\r\n\r\n"),
        })
        .collect();
    let mut connection = Connection::open(address, Some(task.source)).await?;
    let gap = Duration::from_secs(every_s).div_f64(waiters.len() as f64);
    sleep(gap.mul_f64(nth as f64 / (POLLING * task.addresses.len()) as f64)).await;
    let mut timer = interval_at(Instant::now(), gap);
    for request in requests.iter().cycle() {
        timer.tick().await;
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let answer = connection.send(request.as_bytes()).await?;
        if answer.status != 200 {
            counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        counters.messages.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(answer.bytes as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn dial(address: &str, source: Option<Ipv4Addr>) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    let stream = socket.connect(address.parse()?).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Head and body.
    pub(crate) bytes: usize,
}

/// One connection for requests one after the other.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str, source: Option<Ipv4Addr>) -> Result<Self> {
        Ok(Self { stream: dial(address, source).await?, buffer: Vec::with_capacity(4_096) })
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(head) = response.parse(&self.buffer)? else { continue };
            let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length: usize = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).context("no length")?;
            let status = response.code.context("no status")?;
            if self.buffer.len() >= head + length {
                return Ok(Answer { status, body: self.buffer[head..head + length].to_vec(), bytes: head + length });
            }
        }
    }
}
