//! Calls of the scripts of a room's log, and long snapshots.
//!
//! A snapshot that is too long for one answer or one command is transferred in pieces. So other commands of the shared
//! connection run in between, and the bound on a round trip does not bound a room.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::ConcertId;
use boxoffice_ports::{Clock, RoomLogError, Source};
use redis::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::super::connect::Redis;
use super::super::script::Script;
use super::scripts::{self, Arguments, Beginning, PIECE};

/// A log that is not used is deleted after this time, in seconds: longer than any entry of a room is kept.
const LOG_KEPT_S: u64 = 7 * 24 * 3_600;
/// How many calls of this instance Redis is given at once, so that those behind them in a crowd do not count their wait as
/// Redis's silence.
const CALLS_MAX: usize = 256;
/// How long a call waits for that. After it, more is asked than Redis answers, or it hangs.
const CALL_WAIT_MAX: Duration = Duration::from_secs(1);
/// The most bytes of a snapshot in one command or answer.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// The longest value that Redis keeps by default. A longer snapshot is refused, and the log is not compacted.
const SNAPSHOT_BYTES_MAX: usize = 512 << 20;
/// Pieces whose owner has gone expire after this time; the next piece must follow within it.
const PIECES_KEPT: Duration = Duration::from_secs(30);

pub(super) struct Calls {
    redis: Redis,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
}

impl Calls {
    pub(super) fn new(redis: Redis, clock: Arc<dyn Clock>) -> Self {
        Self { redis, clock, permits: Semaphore::new(CALLS_MAX) }
    }

    /// The first arguments of every script.
    pub(super) fn arguments(&self) -> Arguments {
        let offset_us = self.clock.offset().num_microseconds().unwrap_or(i64::MAX);
        Arguments::default().number(offset_us).number(LOG_KEPT_S)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, RoomLogError> {
        let permit = timeout(CALL_WAIT_MAX, self.permits.acquire()).await;
        permit.map_err(|_| unavailable("timed out behind other calls that wait for Redis"))?.map_err(unavailable)
    }

    /// One call of a script.
    pub(super) async fn run(
        &self,
        concert: ConcertId,
        pieces: &str,
        script: &Script,
        arguments: &Arguments,
    ) -> Result<Value, RoomLogError> {
        let _permit = self.permit().await?;
        self.redis.run(script, &scripts::keys(concert, pieces), &arguments.0).await.map_err(unavailable)
    }

    /// Reads the rest of a snapshot. `None`: it was replaced meanwhile.
    pub(super) async fn rest(&self, concert: ConcertId, beginning: &mut Beginning) -> Result<Option<()>, RoomLogError> {
        while beginning.snapshot.len() < beginning.size {
            let arguments = self.arguments().number(beginning.epoch).number(beginning.seq);
            let arguments = arguments.number(beginning.snapshot.len() as u64).number(PIECE_BYTES as u64);
            match self.run(concert, "pieces", &PIECE, &arguments).await? {
                Value::Int(0) => return Ok(None),
                Value::BulkString(piece) if !piece.is_empty() => beginning.snapshot.extend_from_slice(&piece),
                _ => return Err(senseless()),
            }
        }
        Ok(Some(()))
    }

    /// Runs a script whose last arguments are a snapshot's size and the snapshot. Whether it stored the snapshot.
    pub(super) async fn put(
        &self,
        concert: ConcertId,
        script: &Script,
        arguments: Arguments,
        snapshot: &[u8],
    ) -> Result<bool, RoomLogError> {
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(unavailable(format!("a snapshot of {} bytes is longer than a value in Redis", snapshot.len())));
        }
        let arguments = arguments.number(snapshot.len() as u64);
        let pieces = format!("pieces:{:016x}", rand::random::<u64>());
        let is_short = snapshot.len() <= PIECE_BYTES;
        let arguments = arguments.bytes(if is_short { snapshot } else { &[] });
        let mut answer = self.run(concert, &pieces, script, &arguments).await?;
        // The first call finds out whether the snapshot is wanted at all.
        if answer == Value::Int(2) && !is_short {
            self.send(concert, &pieces, snapshot).await?;
            answer = self.run(concert, &pieces, script, &arguments).await?;
        }
        match scripts::number(answer) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(2) => Err(unavailable("pieces of a snapshot were lost while it was sent")),
            _ => Err(senseless()),
        }
    }

    async fn send(&self, concert: ConcertId, pieces: &str, snapshot: &[u8]) -> Result<(), RoomLogError> {
        let [.., key] = &scripts::keys(concert, pieces)[..] else { return Err(senseless()) };
        for piece in snapshot.chunks(PIECE_BYTES) {
            let mut commands = redis::pipe();
            commands.cmd("APPEND").arg(key).arg(piece).cmd("EXPIRE").arg(key).arg(PIECES_KEPT.as_secs());
            let _permit = self.permit().await?;
            self.redis.pipeline::<Value>(&commands).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

pub(super) fn unavailable(error: impl Into<Source>) -> RoomLogError {
    RoomLogError::Unavailable(error.into())
}

/// A script of another version, or keys that another program wrote.
pub(super) fn senseless() -> RoomLogError {
    RoomLogError::Broken("the answer of a script of the log has an unexpected form".into())
}
