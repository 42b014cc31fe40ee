//! Making a room that is not in Redis: a new one, or one that was lost.
//!
//! | step | what | when it ends here |
//! | --- | --- | --- |
//! | claim | `SET building NX PX`: one instance builds | another one claims when the claim has run out |
//! | load | mark, turns and admission from the mirror, read after the claim | the same |
//! | install | one script: only while the claim stands and there is no room | the room is there, whole |
//!
//! Whatever the mirror is told later on behalf of an earlier epoch does not count in this one: its instance finds
//! another epoch when it comes to confirm, and lets nobody in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use boxoffice_domain::UserId;
use boxoffice_domain::admission::INTERVAL_S_MAX;
use boxoffice_ports::{ActivePlace, RoomError, RoomMark, RoomTerms};
use redis::Value;
use tokio::time::sleep;

use super::script::{Arguments, CLAIM, INSTALL, Said};
use super::{Known, RedisWaitingRoom, senseless, unavailable, wire};

/// How long one instance may take to build a room before another one tries.
const BUILD_MAX_MS: u32 = 2_000;
/// How often, and after what pause, others ask whether it is there. Then their callers are told that it is unavailable.
const WAITS_MAX: u32 = 25;
const WAIT: Duration = Duration::from_millis(20);
/// The longest pause after a loss that a rate makes: promotion must go on within five seconds. A rate over a longer
/// time goes on from what the mirror and this instance know of it.
const RATE_PAUSE_MAX_US: i64 = 3_000_000;

/// The promotions that an instance has seen, so that a rate holds over a loss.
#[derive(Default)]
pub(super) struct Paced {
    epoch: Vec<u8>,
    total: i64,
    /// Seen without a gap from here to there, microseconds.
    since: i64,
    to: i64,
    promotions: VecDeque<(i64, u32)>,
}

impl Paced {
    /// What a tick says: the room's time, and how many were promoted in all.
    pub(super) fn see(&mut self, epoch: &[u8], now: i64, total: i64) {
        if self.epoch != epoch {
            *self = Self { epoch: epoch.to_vec(), total, since: now, to: now, promotions: VecDeque::new() };
            return;
        }
        let more = u32::try_from(total - self.total).unwrap_or(0);
        if more > 0 {
            self.promotions.push_back((now, more));
        }
        (self.total, self.to) = (total.max(self.total), now);
        let longest = i64::from(INTERVAL_S_MAX) * 1_000_000;
        while self.promotions.front().is_some_and(|(at, _)| *at < now - longest) {
            self.promotions.pop_front();
        }
    }

    /// All that is known: one's own, and of the mirror's turns those that began outside what one has seen.
    fn with(&self, turns: &[ActivePlace]) -> BTreeMap<i64, u32> {
        let mut all: BTreeMap<i64, u32> = BTreeMap::new();
        let began = turns.iter().map(|turn| turn.promoted_at.timestamp_micros());
        let unseen = began.filter(|at| *at < self.since || *at > self.to).map(|at| (at, 1));
        for (at, count) in self.promotions.iter().copied().chain(unseen) {
            let sum = all.entry(at).or_default();
            *sum = sum.saturating_add(count);
        }
        all
    }
}

impl RedisWaitingRoom {
    /// Returns when the room is there, whoever built it.
    pub(super) async fn build(&self, known: &Known, terms: RoomTerms) -> Result<(), RoomError> {
        let _turn = known.building.lock().await;
        let epoch = self.fresh_name();
        for _ in 0..WAITS_MAX {
            let claim = Arguments::default().bytes(epoch.as_str()).number(BUILD_MAX_MS);
            match self.run(terms.concert, &CLAIM, claim).await? {
                Value::Int(0) => return Ok(()),
                Value::Int(1) => return self.install(known, terms, &epoch).await,
                _ => sleep(WAIT).await,
            }
        }
        Err(RoomError::Unavailable("another instance is building the waiting room".into()))
    }

    async fn install(&self, known: &Known, terms: RoomTerms, epoch: &str) -> Result<(), RoomError> {
        let concert = terms.concert;
        let (mark, turns) = self.mirror.load(concert).await.map_err(unavailable)?.unwrap_or_default();
        let own = self.mirror.admission(concert).await.map_err(unavailable)?;
        let (version, admission) = own.map_or((0, terms.admission), |own| (own.version, own.admission));
        let promotions = known.paced().with(&turns);
        let (turns, superseded) = latest_of_each(turns);
        let (mut turn_bytes, mut gone, mut paced) = (Vec::new(), Vec::new(), Vec::new());
        turns.iter().for_each(|turn| wire::put_turn(&mut turn_bytes, turn));
        superseded.iter().for_each(|turn| gone.extend_from_slice(turn.entry.0.as_bytes()));
        promotions.iter().for_each(|(at, count)| wire::put_promotions(&mut paced, *at, *count));
        let RoomMark { last_place, promoted_to, served, expired, left } = mark;
        let arguments = Arguments::default().bytes(epoch).number(wire::put_sale(terms.sale_starts_at));
        let arguments = wire::put_admission(arguments, version, admission).number(last_place).number(promoted_to);
        let arguments = arguments.number(served).number(expired).number(left).number(RATE_PAUSE_MAX_US);
        let arguments = arguments.bytes(turn_bytes).bytes(gone).bytes(paced);
        match Said::parse(self.run(concert, &INSTALL, arguments).await?).ok_or_else(senseless)? {
            Said::Done(_) => {
                if last_place > 0 {
                    tracing::warn!(concert.id = %concert, turns = turns.len(), "a waiting room was lost and is rebuilt");
                }
                Ok(())
            }
            // Somebody else was quicker, or it took too long: whoever asks again will see.
            _ => Err(RoomError::Unavailable("the waiting room was not built in time".into())),
        }
    }
}

/// In the order in which they began; of two turns of one user, which a crash can leave behind, the later one, and the
/// other apart.
fn latest_of_each(mut turns: Vec<ActivePlace>) -> (Vec<ActivePlace>, Vec<ActivePlace>) {
    let mut latest: HashMap<UserId, u64> = HashMap::new();
    for turn in &turns {
        let place = latest.entry(turn.user).or_default();
        *place = turn.place.max(*place);
    }
    turns.sort_unstable_by_key(|turn| (turn.promoted_at, turn.place));
    turns.into_iter().partition(|turn| latest.get(&turn.user) == Some(&turn.place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};
    use uuid::Uuid;

    fn turn(user: u128, place: u64, began_us: i64) -> ActivePlace {
        let at = |us| DateTime::UNIX_EPOCH + TimeDelta::microseconds(us);
        ActivePlace {
            entry: Uuid::from_u128(u128::from(place)).into(),
            user: Uuid::from_u128(user).into(),
            place,
            promoted_at: at(began_us),
            active_until: at(began_us + 100),
        }
    }

    #[test]
    fn promotions_seen_and_promotions_mirrored_are_counted_once() {
        let mut paced = Paced::default();
        paced.see(b"a", 100, 7);
        paced.see(b"a", 200, 9);
        let known = paced.with(&[turn(1, 1, 50), turn(2, 2, 150), turn(3, 3, 250)]);
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [(50, 1), (200, 2), (250, 1)]);
        paced.see(b"b", 300, 3);
        assert_eq!(paced.with(&[turn(2, 2, 150)]).into_iter().collect::<Vec<_>>(), [(150, 1)], "another epoch counts anew");
    }

    #[test]
    fn of_two_turns_of_a_user_the_later_counts() {
        let (kept, gone) = latest_of_each(vec![turn(1, 9, 5), turn(2, 3, 4), turn(1, 2, 1)]);
        assert_eq!(kept.iter().map(|turn| turn.place).collect::<Vec<_>>(), [3, 9]);
        assert_eq!(gone.iter().map(|turn| turn.place).collect::<Vec<_>>(), [2]);
    }
}
