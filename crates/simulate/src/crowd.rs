//! When buyers arrive, how long they wait and what they do in their turn: everything random.
//!
//! One stream of random numbers, used in the order of events: the same seed gives the same crowd.

use super::world::{Arrivals, World};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1, LogNormal, Triangular};

/// The share of programs among the buyers of [`Arrivals::Bots`].
const BOTS: f64 = 0.3;
const BOTS_CONVERSION: f64 = 0.1;
const BOTS_THINK_S: f64 = 5.0;
/// Buyers arrive for so long before a sale that begins with a draw.
pub(super) const PRESALE_S: u32 = 600;
/// The mean of a flash is this share of the time in which buyers arrive.
const FLASH: f64 = 0.15;
/// The standard deviation of the logarithm of a turn's length.
const THINK_SIGMA: f64 = 0.6;
/// The mean time from promotion to the first choice of seats.
const REACTION_S: f64 = 3.0;

pub(super) struct Crowd {
    random: ChaCha8Rng,
    world: World,
}

/// A buyer's arrival.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    /// After the beginning of the simulation.
    pub(super) at_ms: u32,
    pub(super) is_bot: bool,
}

impl Crowd {
    pub(super) fn new(world: &World) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(world.seed), world: world.clone() }
    }

    /// When the sale starts; arrivals before it are drawn.
    pub(super) fn start_ms(&self) -> u32 {
        if self.world.presale > 0.0 { PRESALE_S * 1_000 } else { 0 }
    }

    /// All buyers, in the order of arrival.
    pub(super) fn arrivals(&mut self) -> Vec<Arrival> {
        let start_ms = self.start_ms();
        let mut all: Vec<_> = (0..self.world.buyers)
            .map(|_| {
                let is_bot = self.world.arrivals == Arrivals::Bots && self.random.random_bool(BOTS);
                let at_ms = if self.random.random_bool(self.world.presale) {
                    self.random.random_range(0..start_ms)
                } else {
                    start_ms + (self.arrives_after_s(is_bot) * 1e3) as u32
                };
                Arrival { at_ms, is_bot }
            })
            .collect();
        all.sort_by_key(|arrival| arrival.at_ms);
        all
    }

    fn arrives_after_s(&mut self, is_bot: bool) -> f64 {
        let over = f64::from(self.world.arrive_s);
        match self.world.arrivals {
            _ if is_bot => self.random.random(),
            // Repeated while it is beyond the end, so that the curve keeps its shape.
            Arrivals::Flash | Arrivals::Bots => loop {
                let at: f64 = FLASH * over * self.exponential();
                if at < over {
                    return at;
                }
            },
            Arrivals::Ramp => Triangular::new(0.0, over, over / 2.0).map_or(0.0, |ramp| ramp.sample(&mut self.random)),
        }
    }

    fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.random)
    }

    /// The buyer's lane; 0 is the general one.
    pub(super) fn lane(&mut self) -> u8 {
        let mut at: f64 = if self.world.lanes.is_empty() { 1.0 } else { self.random.random() };
        for (lane, of) in self.world.lanes.iter().zip(1..) {
            at -= lane.share;
            if at < 0.0 {
                return of;
            }
        }
        0
    }

    /// How long the buyer waits before giving up; `None`: for ever.
    pub(super) fn patience_ms(&mut self, is_bot: bool) -> Option<u32> {
        let mean = self.world.patience_s.filter(|_| !is_bot)?;
        Some((f64::from(mean) * 1e3 * self.exponential()) as u32)
    }

    pub(super) fn takes_the_turn(&mut self, is_bot: bool) -> bool {
        is_bot || !self.random.random_bool(self.world.no_shows)
    }

    pub(super) fn reaction_ms(&mut self, is_bot: bool) -> u32 {
        if is_bot { 100 } else { self.log_normal_ms(REACTION_S) }
    }

    pub(super) fn think_ms(&mut self, is_bot: bool) -> u32 {
        self.log_normal_ms(if is_bot { BOTS_THINK_S } else { f64::from(self.world.think_s) })
    }

    /// `progress`: the share of the seats that are sold, by which the conversion drifts.
    pub(super) fn buys(&mut self, is_bot: bool, progress: f64) -> bool {
        let drift = self.world.conversion;
        let share = if is_bot { BOTS_CONVERSION } else { drift.from + (drift.to - drift.from) * progress };
        self.random.random_bool(share.clamp(0.0, 1.0))
    }

    /// A log-normal time with this mean.
    fn log_normal_ms(&mut self, mean_s: f64) -> u32 {
        let mu = (mean_s * 1e3).ln() - THINK_SIGMA * THINK_SIGMA / 2.0;
        LogNormal::new(mu, THINK_SIGMA).map_or(0.0, |times| times.sample(&mut self.random)) as u32
    }

    /// A number below `count`.
    pub(super) fn any(&mut self, count: u32) -> u32 {
        self.random.random_range(0..count)
    }

    pub(super) fn seed(&mut self) -> [u8; 32] {
        self.random.random()
    }
}
