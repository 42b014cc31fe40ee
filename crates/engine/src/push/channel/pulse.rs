//! What time brings to the listeners of a channel.

use boxoffice_domain::waiting::{Lane, RoomSummary};
use tokio::time::Instant;

use super::{Channel, Class, Delivery, RoomView, mode_event};
use crate::push::frame;
use crate::push::sender::FrameSender;

/// Places that one shared frame names as left. If there are more, an own frame is shorter for each listener.
const LEFT_MAX: usize = 200;
/// Listeners that become near with one shared frame; the others do with the next.
const NEARER_MAX: usize = 2_000;

impl Channel {
    /// The shared frames to be handed over now, and the listeners that then get own frames, in this order.
    pub(crate) fn pulse(&mut self, sender: &FrameSender<'_>, instant: Instant, view: RoomView<'_>) -> (Vec<Delivery>, Vec<u64>) {
        self.observe(view);
        let summary = view.room.summary(view.now);
        let mut due = Vec::new();
        for event in self.events(&summary) {
            self.send_to_all(event, sender, &mut due);
        }
        if std::mem::take(&mut self.is_invalid) {
            for streams in &mut self.lanes {
                streams.near.begin_anew(view.room.departures().count());
                streams.far.begin_anew(view.room.departures().count());
            }
            return (due, self.members.keys().copied().collect());
        }
        let mut own = Vec::new();
        for at in 0..self.lanes.len() {
            let lane = Lane(at as u8);
            let rate = summary.lanes.get(at).map_or(0.0, |(_, rate)| *rate);
            for class in [Class::Near, Class::Far] {
                let every = if class == Class::Near { self.pace.near } else { self.pace.far };
                let Some(stream) = self.lanes[at].of(class).filter(|stream| stream.due_at <= instant) else { continue };
                stream.due_at = (stream.due_at + every).max(instant + every / 2);
                due.extend(self.position(lane, class, rate, view, &mut own));
                if class == Class::Near {
                    let first_far = view.room.place_behind(lane, self.pace.nearest).unwrap_or(u64::MAX);
                    let nearer = self.lanes[at].far.members.range(..(first_far, 0));
                    own.extend(nearer.take(NEARER_MAX).map(|(_, id)| *id));
                }
            }
        }
        own.extend(self.due_for_sale(summary.open, instant));
        (due, own)
    }

    /// How many entries were admitted and which places left since the last frame of a stream.
    fn position(&mut self, lane: Lane, class: Class, rate: f64, view: RoomView<'_>, own: &mut Vec<u64>) -> Option<Delivery> {
        let (admitted, departures) = (view.room.admitted(lane), view.room.departures());
        let stream = self.lanes[usize::from(lane.0)].of(class)?;
        let Some((last, _)) = stream.members.last().copied() else {
            stream.begin_anew(departures.count());
            return None;
        };
        let left = departures.since(stream.departures_sent).filter(|_| !stream.is_broken);
        let left: Option<Vec<_>> = left.map(|all| all.filter(|(of, place)| *of == lane && *place < last).map(|(_, place)| place).collect());
        let Some(left) = left.filter(|left| left.len() <= LEFT_MAX) else {
            stream.begin_anew(departures.count());
            own.extend(stream.members.iter().map(|(_, id)| *id));
            return None;
        };
        stream.departures_sent = departures.count();
        let frame = stream.render("position", |seq| frame::position(seq, admitted, &left, rate));
        let mut to = Vec::with_capacity(stream.members.len());
        for (_, id) in &stream.members {
            match self.members.get(id) {
                Some(member) if member.is_settled => to.push(member.listener.clone()),
                _ => own.push(*id),
            }
        }
        Some(Delivery { frame, to })
    }

    /// Changes of the room that concern all who wait, since the last look.
    fn events(&mut self, summary: &RoomSummary) -> Vec<&'static str> {
        let Some(announced) = &mut self.announced else { return Vec::new() };
        let mut events = Vec::new();
        if std::mem::replace(&mut announced.mode, summary.mode) != summary.mode {
            events.push(mode_event(summary.mode));
        }
        if std::mem::replace(&mut announced.sold_out, summary.sold_out) != summary.sold_out {
            events.push(if summary.sold_out { "sold_out" } else { "available" });
        }
        events
    }

    /// Sends an event to every listener whose entry waits.
    fn send_to_all(&mut self, event: &'static str, sender: &FrameSender<'_>, due: &mut Vec<Delivery>) {
        let mut own: Vec<_> = self.pre_sale.iter().copied().collect();
        for streams in &mut self.lanes {
            for stream in [&mut streams.near, &mut streams.far] {
                if stream.members.is_empty() {
                    continue;
                }
                let frame = stream.render(event, |seq| frame::plain(event, seq));
                let (settled, others): (Vec<u64>, Vec<u64>) =
                    stream.members.iter().map(|(_, id)| *id).partition(|id| self.members.get(id).is_some_and(|member| member.is_settled));
                let to = settled.iter().filter_map(|id| self.members.get(id)).map(|member| member.listener.clone()).collect();
                due.push(Delivery { frame, to });
                own.extend(others);
            }
        }
        for id in own {
            if let Some(member) = self.members.get_mut(&id) {
                member.seq += 1;
                sender.send(&member.listener, event, member.seq, &frame::plain(event, member.seq));
            }
        }
    }

    /// The next listeners to get a frame because the sale has begun: not all at once.
    fn due_for_sale(&mut self, is_open: bool, instant: Instant) -> Vec<u64> {
        if !is_open || self.pre_sale.is_empty() {
            self.opened = None;
            return Vec::new();
        }
        let (since, all) = *self.opened.get_or_insert((instant, self.pre_sale.len()));
        let share = (instant - since).div_duration_f64(self.pace.spread).min(1.0);
        let announced_before = all.saturating_sub(self.pre_sale.len());
        let now = if share >= 1.0 { all } else { ((all as f64 * share) as usize).saturating_sub(announced_before).max(1) };
        self.pre_sale.iter().copied().take(now).collect()
    }
}
