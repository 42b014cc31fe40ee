//! The parameters of a simulation: the crowd, the hall, and how the room admits.

use boxoffice_domain::waiting::{LANES_MAX, LaneTerms, RoomTerms, SHARES};
use boxoffice_domain::{Admission, AdmissionMode, PerInterval};
use serde::Serialize;

/// The most buyers of one run: about 400 bytes each.
pub const BUYERS_MAX: u32 = 5_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Most arrive at once, then fewer and fewer
    Flash,
    /// More and more towards the middle of the time, then fewer
    Ramp,
    /// A flash, and three in ten are programs that arrive in the first second, never leave, and seldom buy
    Bots,
}

/// A share that changes evenly while the buyers have their turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    pub from: f64,
    pub to: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Seconds after the start of the sale.
    pub at_s: u32,
    pub for_s: u32,
}

/// See the module's opening. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct World {
    pub seed: u64,
    pub buyers: u32,
    pub arrivals: Arrivals,
    /// For how long after the start of the sale buyers arrive.
    pub arrive_s: u32,
    /// The share of buyers that arrive before the sale, and are drawn.
    pub presale: f64,
    /// The mean time after which a waiting buyer gives up; null: never.
    pub patience_s: Option<u32>,
    pub conversion: Drift,
    pub no_shows: f64,
    pub seats: u32,
    pub seats_per_buyer: u32,
    /// The mean time from the choice of seats to the payment, or to leaving without one.
    pub think_s: u32,
    /// The longest turn.
    pub turn_s: u32,
    /// With `auto_max_active` its upper bound.
    pub max_active: u32,
    pub auto_max_active: bool,
    #[serde(serialize_with = "rate")]
    pub per_interval: Option<PerInterval>,
    pub stock_linked: bool,
    /// How many shoppers the servers can carry at the same time; null: any number, and admission does not adapt.
    pub capacity: Option<u32>,
    pub lanes: Vec<LaneShare>,
    pub pause: Option<Pause>,
    pub tick_ms: u32,
}

/// A lane with its share of the promotions, and as large a share of the buyers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneShare {
    pub name: String,
    pub share: f64,
}

fn rate<S: serde::Serializer>(rate: &Option<PerInterval>, serializer: S) -> Result<S::Ok, S::Error> {
    rate.map(|rate| format!("{}/{}", rate.count, rate.seconds)).serialize(serializer)
}

/// An option and what is wrong with its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{option}: {reason}")]
pub struct Fault {
    pub option: &'static str,
    pub reason: String,
}

impl World {
    /// 100,000 buyers for 20,000 seats.
    pub fn sample(seed: u64) -> Self {
        Self {
            seed,
            buyers: 100_000,
            arrivals: Arrivals::Flash,
            arrive_s: 1_800,
            presale: 0.0,
            patience_s: Some(3_600),
            conversion: Drift { from: 0.6, to: 0.6 },
            no_shows: 0.05,
            seats: 20_000,
            seats_per_buyer: 2,
            think_s: 120,
            turn_s: 600,
            max_active: 1_000,
            auto_max_active: false,
            per_interval: None,
            stock_linked: false,
            capacity: None,
            lanes: Vec::new(),
            pause: None,
            tick_ms: 250,
        }
    }

    /// The first fault, if there is any.
    pub fn fault(&self) -> Option<Fault> {
        let fault = |option, reason: String| Some(Fault { option, reason });
        let whole = |option, value: u32, from: u32, to: u32| {
            if (from..=to).contains(&value) { None } else { fault(option, format!("{value} is not from {from} to {to}")) }
        };
        let share = |option, value: f64| {
            if (0.0..=1.0).contains(&value) { None } else { fault(option, format!("{value} is not from 0 to 1")) }
        };
        let lanes = || {
            let sum: f64 = self.lanes.iter().map(|lane| lane.share).sum();
            let bad = self.lanes.iter().find(|lane| !(0.001..1.0).contains(&lane.share));
            let twice = self.lanes.iter().enumerate().find(|(at, lane)| self.lanes[..*at].iter().any(|other| other.name == lane.name));
            match (bad, twice) {
                _ if self.lanes.len() > LANES_MAX => fault("lanes", format!("at most {LANES_MAX} are allowed")),
                (Some(lane), _) => fault("lanes", format!("{}={} is not from 0.001 to less than 1", lane.name, lane.share)),
                (_, Some((_, lane))) => fault("lanes", format!("{} is named twice", lane.name)),
                _ if sum >= 1.0 => fault("lanes", format!("the shares add up to {sum} and leave nothing to buyers without a lane")),
                _ => None,
            }
        };
        let admission = || {
            let found = self.admission().faults().into_iter().next()?;
            let option = if found.field == "max_active" { "max-active" } else { "rate" };
            fault(option, found.reason)
        };
        whole("buyers", self.buyers, 1, BUYERS_MAX)
            .or_else(|| whole("arrive-s", self.arrive_s, 1, 86_400))
            .or_else(|| share("presale", self.presale))
            .or_else(|| whole("patience-s", self.patience_s.unwrap_or(1), 1, 604_800))
            .or_else(|| share("conversion", self.conversion.from))
            .or_else(|| share("conversion", self.conversion.to))
            .or_else(|| share("no-shows", self.no_shows))
            .or_else(|| whole("seats", self.seats, 1, 10_000_000))
            .or_else(|| whole("seats-per-buyer", self.seats_per_buyer, 1, 100))
            .or_else(|| whole("think-s", self.think_s, 1, 86_400))
            .or_else(|| whole("turn-s", self.turn_s, 1, 86_400))
            .or_else(|| whole("capacity", self.capacity.unwrap_or(1), 1, 10_000_000))
            .or_else(|| whole("pause", self.pause.map_or(1, |pause| pause.for_s), 1, 86_400))
            .or_else(|| whole("tick-ms", self.tick_ms, 10, 10_000))
            .or_else(admission)
            .or_else(lanes)
    }

    pub(super) fn admission(&self) -> Admission {
        Admission {
            mode: AdmissionMode::Running,
            max_active: self.max_active,
            per_interval: self.per_interval,
            auto: self.auto_max_active,
            adaptive: self.capacity.is_some(),
        }
    }

    pub(super) fn terms(&self) -> RoomTerms {
        let lane = |lane: &LaneShare| LaneTerms { name: lane.name.clone(), share: (lane.share * f64::from(SHARES)).round() as u16 };
        RoomTerms {
            sale_starts_at: None,
            admission: self.admission(),
            active_ttl_s: self.turn_s,
            extensions_max: 0,
            grace_s: 60,
            waiting_grace_s: 1_800,
            p99_target_ms: super::servers::P99_TARGET_MS,
            lanes: self.lanes.iter().map(lane).collect(),
            commitment: None,
        }
    }
}
