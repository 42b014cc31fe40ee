//! A room, its channel, and clients that know nothing but their frames.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use boxoffice_domain::waiting::{Place, QueueStatus, Room, RoomInput, RoomTerms};
use boxoffice_domain::{AdmissionMode, ConcertId, QueueEntryId, Timestamp, UserId};
use tokio::time::Instant;

use crate::Stats;
use crate::push::channel::{Channel, RoomView};
use crate::push::listener::Listener;
use crate::push::sender::FrameSender;
use crate::push::{End, Form, Next, OwnFrames, Pace};
use crate::testing::{CONCERT, at, id};

pub(super) struct PlainFrames;

impl OwnFrames for PlainFrames {
    fn queue(&self, _: ConcertId, place: &Place, seq: u64, admitted: u64, _: Timestamp) -> String {
        let ahead = place.ahead.map_or("null".to_owned(), |ahead| ahead.to_string());
        let (status, place) = (place.status, place.arrival);
        format!(r#"{{"type":"queue","seq":{seq},"admitted":{admitted},"status":"{status:?}","place":{place},"ahead":{ahead}}}"#)
    }
}

/// What a client computes from its frames: the formula, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) seq: u64,
    pub(super) place: u64,
    pub(super) ahead: Option<u64>,
    pub(super) admitted: u64,
    pub(super) status: String,
    /// The last mode received; empty for running.
    pub(super) mode: String,
    pub(super) own_frames: u32,
    pub(super) frames: u32,
    pub(super) ended: Option<End>,
}

pub(super) fn number(json: &str, key: &str) -> Option<u64> {
    let from = json.find(&format!("\"{key}\":"))? + key.len() + 3;
    let digits: String = json[from..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

pub(super) fn text<'a>(json: &'a str, key: &str) -> &'a str {
    let from = json.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
    json[from..].split('"').next().unwrap()
}

impl Client {
    pub(super) fn reads(&mut self, frame: &[u8]) {
        let frame = std::str::from_utf8(frame).unwrap();
        let json = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let (event, seq) = (text(json, "type"), number(json, "seq").unwrap());
        assert!(frame.starts_with(&format!("event: {event}\nid: {seq}\n")), "{frame}");
        if event != "queue" {
            assert_eq!(seq, self.seq + 1, "a gap before {json} of {self:?}");
        }
        self.seq = seq;
        self.frames += 1;
        match event {
            "queue" => {
                self.own_frames += 1;
                (self.place, self.ahead) = (number(json, "place").unwrap(), number(json, "ahead"));
                self.admitted = number(json, "admitted").unwrap();
                text(json, "status").clone_into(&mut self.status);
            }
            "position" => {
                let admitted = number(json, "admitted").unwrap();
                let left = json.split("\"left\":[").nth(1).unwrap().split(']').next().unwrap();
                let left = left.split(',').filter_map(|place| place.parse::<u64>().ok()).filter(|place| *place < self.place).count();
                let gone = admitted - self.admitted + left as u64;
                let ahead = self.ahead.unwrap();
                assert!(gone <= ahead, "{gone} of {ahead}: {json} to {self:?}");
                (self.ahead, self.admitted) = (Some(ahead - gone), admitted);
            }
            "active" => (self.status, self.ahead) = ("Active".to_owned(), Some(0)),
            "expired" => (self.status, self.ahead) = ("Expired".to_owned(), None),
            "sold_out" => self.status = if self.status == "Waiting" { "SoldOut".to_owned() } else { self.status.clone() },
            "available" => self.status = if self.status == "SoldOut" { "Waiting".to_owned() } else { self.status.clone() },
            "running" => self.mode.clear(),
            mode => mode.clone_into(&mut self.mode),
        }
    }
}

/// What a listener need not wait for.
pub(super) fn ready(listener: &Listener) -> Option<Next> {
    match pin!(listener.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

pub(super) const PACE: Pace =
    Pace { near: Duration::from_secs(1), far: Duration::from_secs(5), spread: Duration::from_millis(1_500), nearest: 20 };

pub(super) struct World {
    pub(super) room: Room,
    pub(super) generation: u64,
    pub(super) now: Timestamp,
    pub(super) instant: Instant,
    pub(super) channel: Channel,
    pub(super) stats: Stats,
    pub(super) clients: HashMap<u64, (Arc<Listener>, Client)>,
    pub(super) next: u64,
}

impl World {
    pub(super) fn new(terms: RoomTerms) -> Self {
        let room = Room::new(id(CONCERT), terms);
        let channel = Channel::new(id(CONCERT), PACE);
        let (now, instant) = (at(0), Instant::now());
        Self { room, generation: 1, now, instant, channel, stats: Stats::default(), clients: HashMap::new(), next: 1 }
    }

    pub(super) fn apply(&mut self, input: &RoomInput) {
        let mut changes = Vec::new();
        self.room.apply(self.now, input, &mut changes);
        let sender = FrameSender { frames: &PlainFrames, stats: &self.stats };
        let view = RoomView { generation: self.generation, room: &self.room, now: self.now };
        for change in &changes {
            self.channel.changed(change, &sender, view);
        }
    }

    pub(super) fn join(&mut self, number: u128, lane: boxoffice_domain::Lane) {
        self.apply(&RoomInput::Join { user: UserId(uuid::Uuid::from_u128(number)), entry: entry(number), lane });
    }

    pub(super) fn listen(&mut self, number: u128, resume: Option<u64>) -> u64 {
        let listener = Listener::new(self.next, entry(number), Form::Sse);
        self.next += 1;
        let sender = FrameSender { frames: &PlainFrames, stats: &self.stats };
        let view = RoomView { generation: self.generation, room: &self.room, now: self.now };
        if self.channel.join(&listener, resume, &sender, view) {
            self.clients.insert(listener.id(), (listener.clone(), Client::default()));
        }
        listener.id()
    }

    pub(super) fn disconnect(&mut self, client: u64) -> Option<Client> {
        let (listener, client) = self.clients.remove(&client)?;
        self.channel.leave(&listener);
        Some(client)
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now += chrono::TimeDelta::milliseconds(ms);
        self.instant += Duration::from_millis(ms.unsigned_abs());
        let sender = FrameSender { frames: &PlainFrames, stats: &self.stats };
        let view = RoomView { generation: self.generation, room: &self.room, now: self.now };
        let (due, own) = self.channel.pulse(&sender, self.instant, view);
        for delivery in &due {
            for listener in &delivery.to {
                assert!(listener.push(delivery.frame.of(listener.form())));
            }
        }
        for id in own {
            self.channel.send_own(id, &sender, view);
        }
    }

    pub(super) fn read_all(&mut self) {
        for (listener, client) in self.clients.values_mut() {
            while client.ended.is_none()
                && let Some(next) = ready(listener)
            {
                match next {
                    Next::Frame(frame) => client.reads(&frame),
                    Next::End(end) => client.ended = Some(end),
                }
            }
        }
    }

    /// Every client gets what is due, and then agrees with polling.
    pub(super) fn assert_agreement(&mut self) {
        for _ in 0..24 {
            self.pass(250);
            self.read_all();
        }
        for (listener, client) in self.clients.values().filter(|(_, client)| client.ended.is_none()) {
            let place = self.room.place(listener.entry(), self.now).unwrap();
            assert_eq!(client.status, format!("{:?}", place.status), "{client:?}");
            assert_eq!(client.ahead, place.ahead, "{client:?} at {place:?}");
            if matches!(place.status, QueueStatus::Waiting | QueueStatus::SoldOut) {
                let mode = self.room.admission().mode;
                assert_eq!(client.mode.is_empty(), mode == AdmissionMode::Running, "{client:?} while {mode:?}");
            }
        }
    }
}

pub(super) fn entry(number: u128) -> QueueEntryId {
    QueueEntryId(uuid::Uuid::from_u128(1_000_000 + number))
}
