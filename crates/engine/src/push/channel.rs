//! Who of this instance listens to one concert's room, and what each of them has been told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use boxoffice_domain::waiting::{Lane, Place, QueueStatus, Room, RoomChange, RoomSummary};
use boxoffice_domain::{AdmissionMode, ConcertId, QueueEntryId, Timestamp};
use tokio::time::Instant;

use super::frame::{self, Shared};
use super::listener::{End, Listener};
use super::stream::{self, Stream};
use super::{Pace, Teller};

/// Places that one shared frame names as left. When there are more, own frames are shorter for everybody.
const LEFT_MAX: usize = 200;
/// Listeners that come nearer with one shared frame; the others do with the next.
const NEARER_MAX: usize = 2_000;

/// One look at a room.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// Of the replica: see [`crate::Rooms::watch`].
    pub(super) generation: u64,
    pub(super) room: &'a Room,
    pub(super) now: Timestamp,
}

/// A shared frame, and whom it is for.
pub(super) struct Delivery {
    pub(super) frame: Shared,
    pub(super) to: Vec<Arc<Listener>>,
}

/// What of a room's state is told apart from numbers.
#[derive(Clone, Copy, PartialEq)]
struct Told {
    generation: u64,
    disturbances: u64,
    mode: AdmissionMode,
    sold_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    /// Waits for the sale.
    PreSale,
    Near,
    Far,
    Active,
}

struct Member {
    listener: Arc<Listener>,
    lane: Lane,
    place: u64,
    spot: Spot,
    /// Of the last frame of their own.
    seq: u64,
    /// Whether the next shared frame fits what they were told. Otherwise they get another own frame in its place.
    is_settled: bool,
}

/// Of one lane.
struct Streams {
    near: Stream,
    far: Stream,
}

impl Streams {
    fn of(&mut self, spot: Spot) -> Option<&mut Stream> {
        match spot {
            Spot::Near => Some(&mut self.near),
            Spot::Far => Some(&mut self.far),
            Spot::PreSale | Spot::Active => None,
        }
    }
}

/// See the module's opening.
pub(super) struct Channel {
    concert: ConcertId,
    pace: Pace,
    members: HashMap<u64, Member>,
    by_entry: HashMap<QueueEntryId, Vec<u64>>,
    lanes: Vec<Streams>,
    pre_sale: BTreeSet<u64>,
    /// Since when those who waited for the sale are told of it, and how many they were.
    opened: Option<(Instant, usize)>,
    told: Option<Told>,
    /// Nothing that anybody was told need be so any more.
    is_distrusted: bool,
}

impl Channel {
    pub(super) fn new(concert: ConcertId, pace: Pace) -> Self {
        Self {
            concert,
            pace,
            members: HashMap::new(),
            by_entry: HashMap::new(),
            lanes: Vec::new(),
            pre_sale: BTreeSet::new(),
            opened: None,
            told: None,
            is_distrusted: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn distrust_all(&mut self) {
        self.is_distrusted = true;
    }

    pub(super) fn end_all(&self, end: End) {
        self.members.values().for_each(|member| member.listener.end(end));
    }

    /// Whether they stay: their entry lives.
    pub(super) fn join(&mut self, listener: &Arc<Listener>, resume: Option<u64>, teller: &Teller<'_>, look: Look<'_>) -> bool {
        self.attend(look);
        let Some(place) = look.room.place(listener.entry(), look.now) else { return false };
        let id = listener.id();
        let member = Member {
            listener: listener.clone(),
            lane: place.lane,
            place: place.arrival,
            // Until it is told below.
            spot: Spot::Active,
            seq: stream::anywhere(),
            is_settled: false,
        };
        self.members.insert(id, member);
        self.by_entry.entry(listener.entry()).or_default().push(id);
        let is_resumed = resume.is_some_and(|seq| self.resume(id, seq, &place));
        if !is_resumed {
            // What was told to those who waited when nobody was let in any more.
            let event = Some(mode_event(look.room.summary(look.now).mode)).filter(|event| *event != "running");
            self.tell_own_and(event, id, teller, look);
        }
        self.members.contains_key(&id)
    }

    /// Gives them what they missed; false when that is not known.
    fn resume(&mut self, id: u64, seq: u64, place: &Place) -> bool {
        let (spot, lane) = (self.spot(place), place.lane);
        let Some(stream) = self.streams(lane).of(spot).filter(|stream| !stream.members.is_empty()) else { return false };
        let Some(missed) = stream.after(seq) else { return false };
        let missed: Vec<_> = missed.cloned().collect();
        stream.members.insert((place.arrival, id));
        if let Some(member) = self.members.get_mut(&id) {
            (member.spot, member.is_settled) = (spot, true);
            for frame in missed {
                member.listener.push(frame.of(member.listener.form()));
            }
        }
        true
    }

    pub(super) fn leave(&mut self, listener: &Listener) {
        self.remove(listener.id());
    }

    fn remove(&mut self, id: u64) -> Option<Member> {
        self.unseat(id);
        let member = self.members.remove(&id)?;
        let entry = member.listener.entry();
        if let Some(ids) = self.by_entry.get_mut(&entry) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_entry.remove(&entry);
            }
        }
        Some(member)
    }

    /// Takes them out of whatever they are told together with others.
    fn unseat(&mut self, id: u64) {
        let Some(member) = self.members.get(&id) else { return };
        let (lane, place, spot) = (member.lane, member.place, member.spot);
        self.pre_sale.remove(&id);
        if let Some(stream) = self.streams(lane).of(spot) {
            stream.members.remove(&(place, id));
        }
    }

    fn streams(&mut self, lane: Lane) -> &mut Streams {
        let at = usize::from(lane.0);
        while self.lanes.len() <= at {
            // Concerts, lanes and instances are not told at the same instants.
            let due = |every: std::time::Duration| Stream::new(Instant::now() + every.mul_f64(rand::random()));
            self.lanes.push(Streams { near: due(self.pace.near), far: due(self.pace.far) });
        }
        &mut self.lanes[at]
    }

    fn spot(&self, place: &Place) -> Spot {
        match place.status {
            QueueStatus::PreSale => Spot::PreSale,
            QueueStatus::Waiting | QueueStatus::SoldOut if place.ahead.is_some_and(|ahead| ahead < self.pace.nearest) => Spot::Near,
            QueueStatus::Waiting | QueueStatus::SoldOut => Spot::Far,
            _ => Spot::Active,
        }
    }

    /// Somebody's status has changed.
    pub(super) fn changed(&mut self, change: &RoomChange, teller: &Teller<'_>, look: Look<'_>) {
        let Some(ids) = self.by_entry.get(&change.entry).cloned() else { return };
        for id in ids {
            let is_active = self.members.get(&id).is_some_and(|member| member.spot == Spot::Active);
            match change.status {
                // Told already, by an own frame, unless the turn was lengthened.
                QueueStatus::Active if is_active && change.was != Some(QueueStatus::Active) => {}
                QueueStatus::Active if is_active => self.tell_own(id, teller, look),
                QueueStatus::Active => self.tell(id, "active", teller),
                QueueStatus::Expired => {
                    self.tell(id, "expired", teller);
                    self.release(id);
                }
                QueueStatus::Done | QueueStatus::Left => self.tell_own(id, teller, look),
                QueueStatus::PreSale | QueueStatus::Waiting | QueueStatus::SoldOut => {}
            }
        }
    }

    /// There is nothing more to be said to them.
    fn release(&mut self, id: u64) {
        if let Some(member) = self.remove(id) {
            member.listener.end(End::Over);
        }
    }

    /// A frame for one alone that says what happened. From then on they are told nothing together with others.
    fn tell(&mut self, id: u64, event: &str, teller: &Teller<'_>) {
        let Some(member) = self.members.get(&id) else { return };
        let (lane, spot, own) = (member.lane, member.spot, member.seq);
        let shared = self.streams(lane).of(spot).map(|stream| stream.seq);
        self.unseat(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.seq = shared.filter(|_| member.is_settled).unwrap_or(own) + 1;
        (member.spot, member.is_settled) = (Spot::Active, false);
        let json = frame::plain(event, member.seq);
        teller.hand(&member.listener, event, member.seq, &json);
    }

    /// Their own frame, by which they are told from now on what is told to those around them.
    pub(super) fn tell_own(&mut self, id: u64, teller: &Teller<'_>, look: Look<'_>) {
        self.tell_own_and(None, id, teller, look);
    }

    /// And what else whoever waits has to know, which is counted apart from what others are told.
    fn tell_own_and(&mut self, event: Option<&str>, id: u64, teller: &Teller<'_>, look: Look<'_>) {
        self.attend(look);
        let Some(member) = self.members.get(&id) else { return };
        let (entry, next) = (member.listener.entry(), member.seq + 1);
        let Some(place) = look.room.place(entry, look.now) else {
            self.tell(id, "expired", teller);
            return self.release(id);
        };
        self.unseat(id);
        let spot = self.spot(&place);
        // What they read now will perhaps never be told to those who read it differently before.
        let is_as_told = self.told.is_none_or(|told| told.sold_out == look.room.is_sold_out());
        let (mut seq, mut is_settled) = (next, false);
        if let Some(stream) = self.streams(place.lane).of(spot) {
            let departures = look.room.departures();
            if stream.members.is_empty() {
                stream.begin_anew(departures.count());
            }
            // Whoever left since the last shared frame is missing from this number already, and will be named by the next.
            let counts_twice =
                departures.since(stream.told).map(|mut all| all.any(|(lane, left)| lane == place.lane && left < place.arrival));
            stream.is_broken |= counts_twice.is_none();
            is_settled = !stream.is_broken && counts_twice == Some(false) && is_as_told && event.is_none();
            seq = if is_settled { stream.seq } else { stream::anywhere() };
            stream.members.insert((place.arrival, id));
        } else if spot == Spot::PreSale {
            self.pre_sale.insert(id);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        (member.lane, member.place, member.spot, member.seq, member.is_settled) = (place.lane, place.arrival, spot, seq, is_settled);
        let json = teller.frames.queue(self.concert, &place, seq, look.room.admitted(place.lane), look.now);
        teller.hand(&member.listener, "queue", seq, &json);
        if let Some(event) = event.filter(|_| spot != Spot::Active) {
            member.seq += 1;
            teller.hand(&member.listener, event, member.seq, &frame::plain(event, member.seq));
        }
        if place.status.is_ended() {
            self.release(id);
        }
    }

    /// Notices when the room is not the one that was told of any more.
    fn attend(&mut self, look: Look<'_>) {
        let (generation, disturbances) = (look.generation, look.room.departures().disturbances());
        let Some(told) = &mut self.told else {
            let RoomSummary { mode, sold_out, .. } = look.room.summary(look.now);
            self.told = Some(Told { generation, disturbances, mode, sold_out });
            return;
        };
        let (is_another, is_disturbed) = (told.generation != generation, told.disturbances != disturbances);
        (told.generation, told.disturbances) = (generation, disturbances);
        self.is_distrusted |= is_another;
        if is_another || is_disturbed {
            for streams in &mut self.lanes {
                (streams.near.is_broken, streams.far.is_broken) = (true, true);
            }
        }
    }

    /// What time brings: shared frames to be handed over, and then, in this order, to whom their own.
    pub(super) fn pulse(&mut self, teller: &Teller<'_>, instant: Instant, look: Look<'_>) -> (Vec<Delivery>, Vec<u64>) {
        self.attend(look);
        let summary = look.room.summary(look.now);
        let mut due = Vec::new();
        for event in self.events(&summary) {
            self.say_to_all(event, teller, &mut due);
        }
        if std::mem::take(&mut self.is_distrusted) {
            for streams in &mut self.lanes {
                streams.near.begin_anew(look.room.departures().count());
                streams.far.begin_anew(look.room.departures().count());
            }
            return (due, self.members.keys().copied().collect());
        }
        let mut alone = Vec::new();
        for at in 0..self.lanes.len() {
            let lane = Lane(at as u8);
            let rate = summary.lanes.get(at).map_or(0.0, |(_, rate)| *rate);
            for spot in [Spot::Near, Spot::Far] {
                let every = if spot == Spot::Near { self.pace.near } else { self.pace.far };
                let Some(stream) = self.lanes[at].of(spot).filter(|stream| stream.due_at <= instant) else { continue };
                stream.due_at = (stream.due_at + every).max(instant + every / 2);
                due.extend(self.position(lane, spot, rate, look, &mut alone));
                if spot == Spot::Near {
                    let first_far = look.room.place_behind(lane, self.pace.nearest).unwrap_or(u64::MAX);
                    let nearer = self.lanes[at].far.members.range(..(first_far, 0));
                    alone.extend(nearer.take(NEARER_MAX).map(|(_, id)| *id));
                }
            }
        }
        alone.extend(self.of_the_sale(summary.open, instant));
        (due, alone)
    }

    /// How many were admitted and who left since the last frame of a stream.
    fn position(&mut self, lane: Lane, spot: Spot, rate: f64, look: Look<'_>, alone: &mut Vec<u64>) -> Option<Delivery> {
        let (admitted, departures) = (look.room.admitted(lane), look.room.departures());
        let stream = self.lanes[usize::from(lane.0)].of(spot)?;
        let Some((last, _)) = stream.members.last().copied() else {
            stream.begin_anew(departures.count());
            return None;
        };
        let left = departures.since(stream.told).filter(|_| !stream.is_broken);
        let left: Option<Vec<_>> = left.map(|all| all.filter(|(of, place)| *of == lane && *place < last).map(|(_, place)| place).collect());
        let Some(left) = left.filter(|left| left.len() <= LEFT_MAX) else {
            stream.begin_anew(departures.count());
            alone.extend(stream.members.iter().map(|(_, id)| *id));
            return None;
        };
        stream.told = departures.count();
        let frame = stream.say("position", |seq| frame::position(seq, admitted, &left, rate));
        let mut to = Vec::with_capacity(stream.members.len());
        for (_, id) in &stream.members {
            match self.members.get(id) {
                Some(member) if member.is_settled => to.push(member.listener.clone()),
                _ => alone.push(*id),
            }
        }
        Some(Delivery { frame, to })
    }

    /// What is to be told of how the room goes on.
    fn events(&mut self, summary: &RoomSummary) -> Vec<&'static str> {
        let Some(told) = &mut self.told else { return Vec::new() };
        let mut events = Vec::new();
        if std::mem::replace(&mut told.mode, summary.mode) != summary.mode {
            events.push(mode_event(summary.mode));
        }
        if std::mem::replace(&mut told.sold_out, summary.sold_out) != summary.sold_out {
            events.push(if summary.sold_out { "sold_out" } else { "available" });
        }
        events
    }

    /// To everybody who waits.
    fn say_to_all(&mut self, event: &'static str, teller: &Teller<'_>, due: &mut Vec<Delivery>) {
        let mut alone: Vec<_> = self.pre_sale.iter().copied().collect();
        for streams in &mut self.lanes {
            for stream in [&mut streams.near, &mut streams.far] {
                if stream.members.is_empty() {
                    continue;
                }
                let frame = stream.say(event, |seq| frame::plain(event, seq));
                let (settled, others): (Vec<u64>, Vec<u64>) =
                    stream.members.iter().map(|(_, id)| *id).partition(|id| self.members.get(id).is_some_and(|member| member.is_settled));
                let to = settled.iter().filter_map(|id| self.members.get(id)).map(|member| member.listener.clone()).collect();
                due.push(Delivery { frame, to });
                alone.extend(others);
            }
        }
        for id in alone {
            if let Some(member) = self.members.get_mut(&id) {
                member.seq += 1;
                teller.hand(&member.listener, event, member.seq, &frame::plain(event, member.seq));
            }
        }
    }

    /// Who of those that waited for the sale is told now that it has begun: not all at once.
    fn of_the_sale(&mut self, is_open: bool, instant: Instant) -> Vec<u64> {
        if !is_open || self.pre_sale.is_empty() {
            self.opened = None;
            return Vec::new();
        }
        let (since, all) = *self.opened.get_or_insert((instant, self.pre_sale.len()));
        let share = (instant - since).div_duration_f64(self.pace.spread).min(1.0);
        let told_before = all.saturating_sub(self.pre_sale.len());
        let now = if share >= 1.0 { all } else { ((all as f64 * share) as usize).saturating_sub(told_before).max(1) };
        self.pre_sale.iter().copied().take(now).collect()
    }
}

fn mode_event(mode: AdmissionMode) -> &'static str {
    match mode {
        AdmissionMode::Running => "running",
        AdmissionMode::Paused => "paused",
        AdmissionMode::Draining => "draining",
    }
}

impl Teller<'_> {
    fn hand(&self, listener: &Listener, event: &str, seq: u64, json: &str) {
        let taken = listener.push(listener.form().encode(event, seq, json));
        let count = if taken { &self.stats.frames_sent } else { &self.stats.slow_listeners };
        count.add(1);
    }
}
