//! The scripts of the waiting room, their keys, and how they are called.
//!
//! Each script is one text: what all begin with, then its own. All ten keys of a concert lie under one hash tag and
//! are given with every call, whether a script needs them or not, so that a Cluster sends it to the one node that has
//! them and no key is touched that was not named.

use std::sync::LazyLock;

use boxoffice_domain::ConcertId;
use redis::Value;

use super::super::connect::Script;
use super::wire::Answer;

/// A room that nobody touches goes away after this time: longer than any entry is kept that has ended.
pub(super) const ROOM_KEPT_S: u64 = 7 * 24 * 3_600;

/// For how long the order of a lost queue is waited for: that long nobody counts as having been passed by, so that a
/// telephone that wakes up late still finds its place.
const RETURN_GRACE_US: i64 = 30 * 60 * 1_000_000;

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {$(
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("prelude.lua"), "\n", include_str!($file))));
    )*};
}

scripts! {
    OPEN = "open.lua",
    LOOK = "look.lua",
    ADMIT = "admit.lua",
    CLAIM = "claim.lua",
    INSTALL = "install.lua",
    JOIN = "join.lua",
    RESERVE = "reserve.lua",
    PLACE = "place.lua",
    RESTORE = "restore.lua",
    LEAVE = "leave.lua",
    FINISH = "finish.lua",
    TICK = "tick.lua",
    CONFIRM = "confirm.lua",
    COUNTS = "counts.lua",
}

/// The keys of a concert's room, in the order in which the scripts know them.
pub(super) fn keys(concert: ConcertId) -> Vec<String> {
    ["room", "entries", "users", "waiting", "active", "ended", "pace", "pending", "unsaved", "building"]
        .iter()
        .map(|part| format!("boxoffice:room:{{{concert}}}:{part}"))
        .collect()
}

/// What a script is told.
#[derive(Clone, Default)]
pub(super) struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.push(bytes.into());
        self
    }

    pub(super) fn number(self, number: impl Into<i128>) -> Self {
        self.bytes(number.into().to_string())
    }

    pub(super) fn flag(self, flag: bool) -> Self {
        self.number(i64::from(flag))
    }

    /// These, between what every script begins and ends with.
    pub(super) fn complete(self, offset_us: i64, turn_us: i64, seen: u64) -> Vec<Vec<u8>> {
        let mut all = Self::default().number(offset_us).number(turn_us).number(ROOM_KEPT_S).0;
        all.extend(self.number(seen).number(RETURN_GRACE_US).0);
        all
    }
}

/// What a script said before its own answer.
pub(super) enum Said {
    Done(Answer),
    NoRoom,
    Draining,
    /// Epoch and last place.
    Reserve(Answer),
    OtherEpoch,
}

impl Said {
    pub(super) fn parse(value: Value) -> Option<Self> {
        let mut answer = Answer::parse(value)?;
        Some(match answer.number()? {
            0 => Self::Done(answer),
            1 => Self::NoRoom,
            2 => Self::Draining,
            3 => Self::Reserve(answer),
            4 => Self::OtherEpoch,
            _ => return None,
        })
    }
}
