//! The listeners that one concert's room has on this instance, and which frames each of them got.

mod pulse;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use boxoffice_domain::waiting::{Lane, Place, QueueStatus, Room, RoomChange, RoomSummary};
use boxoffice_domain::{AdmissionMode, ConcertId, QueueEntryId, Timestamp};
use tokio::time::Instant;

use super::frame::{self, SharedFrame};
use super::listener::{End, Listener};
use super::pace::Pace;
use super::sender::FrameSender;
use super::stream::{self, Stream};

/// One look at a room.
#[derive(Clone, Copy)]
pub(super) struct RoomView<'a> {
    /// Of the replica: see [`crate::Rooms::watch`].
    pub(super) generation: u64,
    pub(super) room: &'a Room,
    pub(super) now: Timestamp,
}

/// A shared frame, and the listeners that it is for.
pub(super) struct Delivery {
    pub(super) frame: SharedFrame,
    pub(super) to: Vec<Arc<Listener>>,
}

/// The state of the room that listeners were sent beside numbers.
#[derive(Clone, Copy, PartialEq)]
struct Announced {
    generation: u64,
    disturbances: u64,
    mode: AdmissionMode,
    sold_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The entry waits for the sale.
    PreSale,
    Near,
    Far,
    Active,
}

struct Member {
    listener: Arc<Listener>,
    lane: Lane,
    place: u64,
    class: Class,
    /// The number of its last own frame.
    seq: u64,
    /// Whether the next shared frame continues its last frame. Otherwise it gets another own frame in its place.
    is_settled: bool,
}

/// The streams of one lane.
struct Streams {
    near: Stream,
    far: Stream,
}

impl Streams {
    fn of(&mut self, class: Class) -> Option<&mut Stream> {
        match class {
            Class::Near => Some(&mut self.near),
            Class::Far => Some(&mut self.far),
            Class::PreSale | Class::Active => None,
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
    /// Since when the start of the sale is announced, and to how many listeners in all.
    opened: Option<(Instant, usize)>,
    announced: Option<Announced>,
    /// No frame sent so far can be relied on.
    is_invalid: bool,
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
            announced: None,
            is_invalid: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn invalidate_all(&mut self) {
        self.is_invalid = true;
    }

    pub(super) fn end_all(&self, end: End) {
        self.members.values().for_each(|member| member.listener.end(end));
    }

    /// Adds a listener and sends its first frames. Whether it stays, because its entry lives.
    pub(super) fn join(&mut self, listener: &Arc<Listener>, resume: Option<u64>, sender: &FrameSender<'_>, view: RoomView<'_>) -> bool {
        self.observe(view);
        let Some(place) = view.room.place(listener.entry(), view.now) else { return false };
        let id = listener.id();
        let member = Member {
            listener: listener.clone(),
            lane: place.lane,
            place: place.arrival,
            // Until its first frame is sent below.
            class: Class::Active,
            seq: stream::anywhere(),
            is_settled: false,
        };
        self.members.insert(id, member);
        self.by_entry.entry(listener.entry()).or_default().push(id);
        let is_resumed = resume.is_some_and(|seq| self.resume(id, seq, &place));
        if !is_resumed {
            // The event that the other listeners got when the room stopped admitting.
            let event = Some(mode_event(view.room.summary(view.now).mode)).filter(|event| *event != "running");
            self.send_own_and(event, id, sender, view);
        }
        self.members.contains_key(&id)
    }

    /// Sends the frames that were missed; false when they are not known.
    fn resume(&mut self, id: u64, seq: u64, place: &Place) -> bool {
        let (class, lane) = (self.class(place), place.lane);
        let Some(stream) = self.streams(lane).of(class).filter(|stream| !stream.members.is_empty()) else { return false };
        let Some(missed) = stream.after(seq) else { return false };
        let missed: Vec<_> = missed.cloned().collect();
        stream.members.insert((place.arrival, id));
        if let Some(member) = self.members.get_mut(&id) {
            (member.class, member.is_settled) = (class, true);
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
        self.leave_class(id);
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

    /// Takes a listener out of its class: it gets no shared frames.
    fn leave_class(&mut self, id: u64) {
        let Some(member) = self.members.get(&id) else { return };
        let (lane, place, class) = (member.lane, member.place, member.class);
        self.pre_sale.remove(&id);
        if let Some(stream) = self.streams(lane).of(class) {
            stream.members.remove(&(place, id));
        }
    }

    fn streams(&mut self, lane: Lane) -> &mut Streams {
        let at = usize::from(lane.0);
        while self.lanes.len() <= at {
            // The frames of concerts, lanes and instances are spread over time.
            let due = |every: std::time::Duration| Stream::new(Instant::now() + every.mul_f64(rand::random()));
            self.lanes.push(Streams { near: due(self.pace.near), far: due(self.pace.far) });
        }
        &mut self.lanes[at]
    }

    fn class(&self, place: &Place) -> Class {
        match place.status {
            QueueStatus::PreSale => Class::PreSale,
            QueueStatus::Waiting | QueueStatus::SoldOut if place.ahead.is_some_and(|ahead| ahead < self.pace.nearest) => Class::Near,
            QueueStatus::Waiting | QueueStatus::SoldOut => Class::Far,
            _ => Class::Active,
        }
    }

    /// An entry's status has changed.
    pub(super) fn changed(&mut self, change: &RoomChange, sender: &FrameSender<'_>, view: RoomView<'_>) {
        let Some(ids) = self.by_entry.get(&change.entry).cloned() else { return };
        for id in ids {
            let is_active = self.members.get(&id).is_some_and(|member| member.class == Class::Active);
            match change.status {
                // Sent already, by an own frame, unless the turn was lengthened.
                QueueStatus::Active if is_active && change.was != Some(QueueStatus::Active) => {}
                QueueStatus::Active if is_active => self.send_own(id, sender, view),
                QueueStatus::Active => self.send_event(id, "active", sender),
                QueueStatus::Expired => {
                    self.send_event(id, "expired", sender);
                    self.release(id);
                }
                QueueStatus::Done | QueueStatus::Left => self.send_own(id, sender, view),
                QueueStatus::PreSale | QueueStatus::Waiting | QueueStatus::SoldOut => {}
            }
        }
    }

    /// Ends a listener: there will be no more frames for it.
    fn release(&mut self, id: u64) {
        if let Some(member) = self.remove(id) {
            member.listener.end(End::Over);
        }
    }

    /// Sends one listener a frame that says what happened. From then on it gets no shared frames.
    fn send_event(&mut self, id: u64, event: &str, sender: &FrameSender<'_>) {
        let Some(member) = self.members.get(&id) else { return };
        let (lane, class, own) = (member.lane, member.class, member.seq);
        let shared = self.streams(lane).of(class).map(|stream| stream.seq);
        self.leave_class(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.seq = shared.filter(|_| member.is_settled).unwrap_or(own) + 1;
        (member.class, member.is_settled) = (Class::Active, false);
        let json = frame::plain(event, member.seq);
        sender.send(&member.listener, event, member.seq, &json);
    }

    /// Sends an own frame. From now on the listener gets the shared frames of its class.
    pub(super) fn send_own(&mut self, id: u64, sender: &FrameSender<'_>, view: RoomView<'_>) {
        self.send_own_and(None, id, sender, view);
    }

    /// The same, followed by an `event` if the entry waits. That is counted apart from the shared frames.
    fn send_own_and(&mut self, event: Option<&str>, id: u64, sender: &FrameSender<'_>, view: RoomView<'_>) {
        self.observe(view);
        let Some(member) = self.members.get(&id) else { return };
        let (entry, next) = (member.listener.entry(), member.seq + 1);
        let Some(place) = view.room.place(entry, view.now) else {
            self.send_event(id, "expired", sender);
            return self.release(id);
        };
        self.leave_class(id);
        let class = self.class(&place);
        // If the status that this listener reads now goes back before the next pulse, the others never get an event of
        // it.
        let is_as_announced = self.announced.is_none_or(|announced| announced.sold_out == view.room.is_sold_out());
        let (mut seq, mut is_settled) = (next, false);
        if let Some(stream) = self.streams(place.lane).of(class) {
            let departures = view.room.departures();
            if stream.members.is_empty() {
                stream.begin_anew(departures.count());
            }
            // This number already lacks the places that left since the last shared frame, and the next one will name
            // them.
            let counts_twice =
                departures.since(stream.departures_sent).map(|mut all| all.any(|(lane, left)| lane == place.lane && left < place.arrival));
            stream.is_broken |= counts_twice.is_none();
            is_settled = !stream.is_broken && counts_twice == Some(false) && is_as_announced && event.is_none();
            seq = if is_settled { stream.seq } else { stream::anywhere() };
            stream.members.insert((place.arrival, id));
        } else if class == Class::PreSale {
            self.pre_sale.insert(id);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        (member.lane, member.place, member.class, member.seq, member.is_settled) = (place.lane, place.arrival, class, seq, is_settled);
        let json = sender.frames.queue(self.concert, &place, seq, view.room.admitted(place.lane), view.now);
        sender.send(&member.listener, "queue", seq, &json);
        if let Some(event) = event.filter(|_| class != Class::Active) {
            member.seq += 1;
            sender.send(&member.listener, event, member.seq, &frame::plain(event, member.seq));
        }
        if place.status.is_ended() {
            self.release(id);
        }
    }

    /// Notices that the room was replaced by another one, or that the formula does not hold for a change.
    fn observe(&mut self, view: RoomView<'_>) {
        let (generation, disturbances) = (view.generation, view.room.departures().disturbances());
        let Some(announced) = &mut self.announced else {
            let RoomSummary { mode, sold_out, .. } = view.room.summary(view.now);
            self.announced = Some(Announced { generation, disturbances, mode, sold_out });
            return;
        };
        let (is_another, is_disturbed) = (announced.generation != generation, announced.disturbances != disturbances);
        (announced.generation, announced.disturbances) = (generation, disturbances);
        self.is_invalid |= is_another;
        if is_another || is_disturbed {
            for streams in &mut self.lanes {
                (streams.near.is_broken, streams.far.is_broken) = (true, true);
            }
        }
    }
}

fn mode_event(mode: AdmissionMode) -> &'static str {
    match mode {
        AdmissionMode::Running => "running",
        AdmissionMode::Paused => "paused",
        AdmissionMode::Draining => "draining",
    }
}
