//! Keep-alive connections that cost almost nothing, so that the server dominates a measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Keep-alive connections of a [`measure`]ment.
pub(crate) const CONNECTIONS: usize = 64;
const WINDOW: Duration = Duration::from_secs(3);
const WINDOWS: usize = 3;

pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub first_byte: Instant,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name).map(str::to_owned)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// Sends a request and reads its whole answer, which has a `Content-Length` or no body.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut first_byte = None;
        let head_end = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            first_byte.get_or_insert_with(Instant::now);
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..head_end])?.to_owned();
        let status = head.get(9..12).context("no status")?.parse()?;
        let length: usize = header(&head, "content-length").map_or(Ok(0), str::parse)?;
        while status != 304 && self.buffer.len() < head_end + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
        }
        Ok(Answer { status, head, body: self.buffer[head_end..].to_vec(), first_byte: first_byte.context("no answer")? })
    }
}

/// Connections that each send their next request after the answer to the last one.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<Result<()>>,
}

struct Shared {
    stop: AtomicBool,
    count: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Load {
    /// `request` makes the bytes of a connection's n-th request.
    pub(crate) async fn start(
        address: &str,
        connections: usize,
        request: impl Fn(usize, u64) -> Vec<u8> + Clone + Send + 'static,
    ) -> Result<Self> {
        // Up to a minute, in microseconds.
        let latencies = Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), count: AtomicU64::new(0), latencies });
        let mut tasks = JoinSet::new();
        for at in 0..connections {
            let mut connection = Connection::open(address).await?;
            let (shared, request) = (shared.clone(), request.clone());
            tasks.spawn(async move {
                for n in 0.. {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let bytes = request(at, n);
                    let started = Instant::now();
                    let answer = connection.send(&bytes).await?;
                    if answer.status >= 300 {
                        bail!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
                    }
                    shared.count.fetch_add(1, Ordering::Relaxed);
                    shared.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(started.elapsed().as_micros() as u64);
                }
                Ok(())
            });
        }
        Ok(Self { shared, tasks })
    }

    pub(crate) fn reset(&self) {
        self.shared.count.store(0, Ordering::Relaxed);
        self.shared.latencies.lock().unwrap_or_else(PoisonError::into_inner).reset();
    }

    /// The number of answers since the last reset, and their latencies in microseconds.
    pub(crate) fn read(&self) -> (u64, Histogram<u64>) {
        let latencies = self.shared.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.shared.count.load(Ordering::Relaxed), latencies)
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task??;
        }
        Ok(())
    }
}

/// The median of some windows.
pub(crate) struct Measured {
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The median of several windows after a warm-up.
pub(crate) async fn measure(address: &str, request: impl Fn(usize, u64) -> Vec<u8> + Clone + Send + 'static) -> Result<Measured> {
    let load = Load::start(address, CONNECTIONS, request).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        load.reset();
        let started = Instant::now();
        tokio::time::sleep(WINDOW).await;
        let (count, latencies) = load.read();
        let quantile_ms = |q: f64| latencies.value_at_quantile(q) as f64 / 1_000.0;
        windows.push(Measured {
            rate: count as f64 / started.elapsed().as_secs_f64(),
            p50_ms: quantile_ms(0.5),
            p99_ms: quantile_ms(0.99),
        });
    }
    load.stop().await?;
    windows.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(windows.swap_remove(WINDOWS / 2))
}
