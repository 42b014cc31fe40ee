//! The scripts of a room's log, with their keys, arguments and answers.
//!
//! All four keys of a concert lie under one hash tag and are passed with every call. So a Cluster sends it to the one node
//! that has them, and no key is touched that was not named.

use std::sync::LazyLock;

use boxoffice_domain::ConcertId;
use redis::Value;

use super::super::script::Script;
use super::stamps::{STAMP_BYTES, Stamp};

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {$(
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("prelude.lua"), "\n", include_str!($file))));
    )*};
}

scripts! {
    EXCHANGE = "exchange.lua",
    BEGIN = "begin.lua",
    COMPACT = "compact.lua",
    PIECE = "piece.lua",
}

/// In front of a record's inputs: its time in microseconds, and its stamp.
const RECORD_HEAD_BYTES: usize = 8 + STAMP_BYTES;

/// In the order of the scripts. `pieces`: the name of the key through which a snapshot is sent.
pub(super) fn keys(concert: ConcertId, pieces: &str) -> Vec<String> {
    ["head", "records", "snapshot", pieces].iter().map(|part| format!("boxoffice:log:{{{concert}}}:{part}")).collect()
}

/// The arguments of a script.
#[derive(Clone, Default)]
pub(super) struct Arguments(pub(super) Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.push(bytes.into());
        self
    }

    pub(super) fn number(self, number: impl Into<i128>) -> Self {
        self.bytes(number.into().to_string())
    }

    pub(super) fn stamp(self, stamp: Option<Stamp>) -> Self {
        self.bytes(stamp.map(Vec::from).unwrap_or_default())
    }
}

/// The answer of `exchange.lua`.
pub(super) enum ExchangeAnswer {
    Records {
        now: i64,
        records: Vec<Stored>,
        /// The time of the caller's own record, which was appended after them.
        own_at: Option<i64>,
    },
    Begin(Beginning),
    Absent {
        now: i64,
    },
    /// An earlier attempt appended it, and other records follow it by now.
    Repeated,
}

pub(super) struct Beginning {
    pub(super) now: i64,
    /// Whether records were found to be lost.
    pub(super) lost: bool,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) stamp: Stamp,
    pub(super) size: usize,
    /// As much of it as fits into one answer.
    pub(super) snapshot: Vec<u8>,
}

pub(super) struct Stored {
    pub(super) at: i64,
    pub(super) stamp: Stamp,
    bytes: Vec<u8>,
}

impl Stored {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let at = i64::from_be_bytes(*at);
        let stamp = *rest.first_chunk::<STAMP_BYTES>()?;
        Some(Self { at, stamp, bytes })
    }

    pub(super) fn inputs(&self) -> &[u8] {
        self.bytes.get(RECORD_HEAD_BYTES..).unwrap_or_default()
    }
}

impl ExchangeAnswer {
    /// `None`: a script of another version, or keys that another program wrote.
    pub(super) fn parse(value: Value) -> Option<Self> {
        let Value::Array(values) = value else { return None };
        let mut values = values.into_iter();
        let mut next = || values.next();
        Some(match number(next()?)? {
            0 => {
                let (now, own_at) = (number(next()?)?, number(next()?)?);
                let Value::Array(records) = next()? else { return None };
                let records = records.into_iter().map(|record| Stored::parse(bytes(record)?)).collect::<Option<_>>()?;
                Self::Records { now, records, own_at: (own_at >= 0).then_some(own_at) }
            }
            1 => {
                let (now, lost) = (number(next()?)?, number(next()?)? == 1);
                let (epoch, seq) = (unsigned(next()?)?, unsigned(next()?)?);
                let stamp = Stamp::try_from(bytes(next()?)?).ok()?;
                let (size, snapshot) = (usize::try_from(number(next()?)?).ok()?, bytes(next()?)?);
                Self::Begin(Beginning { now, lost, epoch, seq, stamp, size, snapshot })
            }
            2 => Self::Absent { now: number(next()?)? },
            3 => Self::Repeated,
            _ => return None,
        })
    }
}

pub(super) fn number(value: Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(number),
        Value::BulkString(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
        _ => None,
    }
}

fn unsigned(value: Value) -> Option<u64> {
    number(value).and_then(|number| u64::try_from(number).ok())
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}
