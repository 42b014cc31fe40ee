//! Snapshots that are too long for one answer or one command come and go in pieces, so that other commands of the
//! shared connection find their turn in between and no bound on a round trip is a bound on a room.

use std::time::Duration;

use boxoffice_domain::ConcertId;
use boxoffice_ports::RoomLogError;
use redis::Value;

use super::super::connect::Script;
use super::script::{self, Arguments, Beginning, PIECE};
use super::{RedisRoomLog, senseless, unavailable};

/// The most bytes of a snapshot in one command or answer.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// What Redis keeps as one value by default. A longer snapshot is refused, and the log stays as long as it is.
const SNAPSHOT_BYTES_MAX: usize = 512 << 20;
/// Pieces whose owner has gone are forgotten after this time; the next piece must follow within it.
const PIECES_KEPT: Duration = Duration::from_secs(30);

impl RedisRoomLog {
    /// The rest of a snapshot. `None`: another one took its place on the way.
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

    /// Runs a script whose last arguments are a snapshot's size and the snapshot. Whether it did what it is for.
    pub(super) async fn put(
        &self,
        concert: ConcertId,
        script: &Script,
        arguments: Arguments,
        snapshot: &[u8],
    ) -> Result<bool, RoomLogError> {
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(unavailable(format!("a snapshot of {} bytes is longer than Redis keeps", snapshot.len())));
        }
        let arguments = arguments.number(snapshot.len() as u64);
        let pieces = format!("pieces:{:016x}", rand::random::<u64>());
        let is_short = snapshot.len() <= PIECE_BYTES;
        let arguments = arguments.bytes(if is_short { snapshot } else { &[] });
        let mut said = self.run(concert, &pieces, script, &arguments).await?;
        // It has been asked whether it is wanted at all.
        if said == Value::Int(2) && !is_short {
            self.bring(concert, &pieces, snapshot).await?;
            said = self.run(concert, &pieces, script, &arguments).await?;
        }
        match script::number(said) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(2) => Err(unavailable("a snapshot's pieces were lost on the way")),
            _ => Err(senseless()),
        }
    }

    async fn bring(&self, concert: ConcertId, pieces: &str, snapshot: &[u8]) -> Result<(), RoomLogError> {
        let [.., key] = &script::keys(concert, pieces)[..] else { return Err(senseless()) };
        for piece in snapshot.chunks(PIECE_BYTES) {
            let mut commands = redis::pipe();
            commands.cmd("APPEND").arg(key).arg(piece).cmd("EXPIRE").arg(key).arg(PIECES_KEPT.as_secs());
            let _turn = self.turn().await?;
            self.redis.pipeline::<Value>(&commands).await.map_err(unavailable)?;
        }
        Ok(())
    }
}
