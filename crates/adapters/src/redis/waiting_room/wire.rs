//! What goes to the scripts and comes back, as bytes: an entry is one compact value in Redis, and so are lists of them.

use boxoffice_domain::{
    Admission, AdmissionMode, Eta, PerInterval, Place, QueueEntryId, QueueStatus, RoomCounts, Timestamp, UserId, room::RATE_WINDOW_S,
};
use boxoffice_ports::ActivePlace;
use chrono::DateTime;
use redis::Value;
use uuid::Uuid;

use super::script::Arguments;

/// A turn on the wire: entry, user, place, beginning and end.
const TURN_BYTES: usize = 16 + 16 + 5 + 7 + 7;

/// An answer, read from its beginning.
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn parse(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => Some(Self(values.into_iter())),
            value @ Value::Int(_) => Some(Self(vec![value].into_iter())),
            _ => None,
        }
    }

    pub(super) fn number(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Int(number) => Some(number),
            Value::BulkString(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn unsigned(&mut self) -> Option<u64> {
        self.number().and_then(|number| u64::try_from(number).ok())
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn list(&mut self) -> Option<Self> {
        Self::parse(self.0.next()?)
    }

    /// Whether there is nothing more.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The rest, each as bytes.
    pub(super) fn all_bytes(mut self) -> Option<Vec<Vec<u8>>> {
        let mut all = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            all.push(self.bytes()?);
        }
        Some(all)
    }
}

/// An entry as a script described it.
pub(super) struct Described {
    pub(super) place: Place,
    /// Joining: it is new. Restoring: it waits for the mirror.
    pub(super) flag: bool,
    pub(super) epoch: Vec<u8>,
}

impl Described {
    /// How the domain's room reads an entry, from what the script knows.
    pub(super) fn parse(mut answer: Answer) -> Option<Self> {
        let now = answer.number()?;
        let stored = answer.bytes()?;
        let (entry, user) = (QueueEntryId(uuid(&answer.bytes()?)?), UserId(uuid(&answer.bytes()?)?));
        let arrival = answer.unsigned()?;
        let (ahead, until, sale) = (answer.number()?, answer.number()?, answer.number()?);
        let sold_out = answer.number()? == 1;
        let promoted = u32::try_from(answer.number()?).unwrap_or(u32::MAX);
        let status = match stored.as_slice() {
            b"W" if sale > now => QueueStatus::PreSale,
            b"W" if sold_out => QueueStatus::SoldOut,
            b"W" => QueueStatus::Waiting,
            b"A" => QueueStatus::Active,
            b"D" => QueueStatus::Done,
            b"E" => QueueStatus::Expired,
            b"L" => QueueStatus::Left,
            _ => return None,
        };
        let shows_ahead = matches!(status, QueueStatus::Active | QueueStatus::Waiting | QueueStatus::SoldOut);
        let ahead = u64::try_from(ahead).ok().filter(|_| shows_ahead);
        let waits = ahead.filter(|_| status == QueueStatus::Waiting);
        let place = Place {
            entry,
            user,
            status,
            arrival,
            ahead,
            active_until: if status == QueueStatus::Active { Some(instant(until)?) } else { None },
            eta: waits.and_then(|ahead| Eta::estimate(ahead, promoted, RATE_WINDOW_S as f64)),
            sale_starts_at: if sale < 0 { None } else { Some(instant(sale)?) },
        };
        Some(Self { place, flag: answer.number()? == 1, epoch: answer.bytes()? })
    }
}

pub(super) fn counts(mut answer: Answer) -> Option<RoomCounts> {
    Some(RoomCounts {
        waiting: answer.unsigned()?,
        active: answer.unsigned()?,
        served: answer.unsigned()?,
        left: answer.unsigned()?,
        expired: answer.unsigned()?,
        admitted_per_s: answer.unsigned()? as f64 / RATE_WINDOW_S as f64,
    })
}

/// An admission with its version, as `look.lua` gives it.
pub(super) fn admission(mut answer: Answer) -> Option<(i64, Admission)> {
    let version = answer.number()?;
    let mode = match answer.bytes()?.as_slice() {
        b"R" => AdmissionMode::Running,
        b"P" => AdmissionMode::Paused,
        b"D" => AdmissionMode::Draining,
        _ => return None,
    };
    let mut small = || u32::try_from(answer.number()?).ok();
    let (max_active, count, seconds) = (small()?, small()?, small()?);
    let per_interval = (count > 0).then_some(PerInterval { count, seconds });
    Some((version, Admission { mode, max_active, per_interval, auto: false, adaptive: false }))
}

/// The other way: what `admit.lua` takes.
pub(super) fn put_admission(arguments: Arguments, version: i64, admission: Admission) -> Arguments {
    let mode = match admission.mode {
        AdmissionMode::Running => "R",
        AdmissionMode::Paused => "P",
        AdmissionMode::Draining => "D",
    };
    let (count, seconds) = admission.per_interval.map_or((0, 0), |rate| (rate.count, rate.seconds));
    arguments.number(version).bytes(mode).number(admission.max_active).number(count).number(seconds)
}

/// The start of sale as scripts take it; -1 for none.
pub(super) fn put_sale(sale_starts_at: Option<Timestamp>) -> i64 {
    sale_starts_at.map_or(-1, |at| at.timestamp_micros().max(0))
}

pub(super) fn instant(us: i64) -> Option<Timestamp> {
    DateTime::from_timestamp_micros(us)
}

pub(super) fn uuid(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

/// A turn as `tick.lua` gives it and `install.lua` takes it.
pub(super) fn turn(bytes: &[u8]) -> Option<ActivePlace> {
    let (bytes, place, began, till) = match bytes.len() {
        TURN_BYTES => (bytes, number(&bytes[32..37]), number(&bytes[37..44]), number(&bytes[44..51])),
        _ => return None,
    };
    Some(ActivePlace {
        entry: QueueEntryId(uuid(&bytes[..16])?),
        user: UserId(uuid(&bytes[16..32])?),
        place: place.unsigned_abs(),
        promoted_at: instant(began)?,
        active_until: instant(till)?,
    })
}

pub(super) fn put_turn(into: &mut Vec<u8>, turn: &ActivePlace) {
    into.extend_from_slice(turn.entry.0.as_bytes());
    into.extend_from_slice(turn.user.0.as_bytes());
    into.extend_from_slice(&turn.place.to_be_bytes()[3..]);
    into.extend_from_slice(&micros(turn.promoted_at).to_be_bytes()[1..]);
    into.extend_from_slice(&micros(turn.active_until).to_be_bytes()[1..]);
}

/// Promotions at an instant, as `install.lua` takes them.
pub(super) fn put_promotions(into: &mut Vec<u8>, at_us: i64, count: u32) {
    into.extend_from_slice(&at_us.max(0).unsigned_abs().to_be_bytes()[1..]);
    into.extend_from_slice(&count.to_be_bytes());
}

fn micros(at: Timestamp) -> u64 {
    at.timestamp_micros().max(0).unsigned_abs()
}

/// At most seven bytes, so it always fits.
fn number(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn a_turn_is_the_same_there_and_back() {
        let began = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_763_733_600_000_001);
        let there = ActivePlace {
            entry: Uuid::from_u128(1 << 100).into(),
            user: Uuid::from_u128(2).into(),
            place: (1 << 40) - 1,
            promoted_at: began,
            active_until: began + TimeDelta::microseconds(1),
        };
        let mut bytes = Vec::new();
        put_turn(&mut bytes, &there);
        assert_eq!(turn(&bytes), Some(there));
        assert_eq!(turn(&bytes[1..]), None);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        assert!(Answer::parse(Value::Okay).is_none());
        let mut answer = Answer::parse(Value::Array(vec![Value::Nil, Value::BulkString(b"x".to_vec()), Value::Int(-1)])).unwrap();
        assert_eq!((answer.number(), answer.number(), answer.unsigned(), answer.number()), (None, None, None, None));
    }
}
