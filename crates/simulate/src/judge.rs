//! Compares the ranges and chances that buyers were shown with what happened. It samples and judges outside of the room.

use super::buyer::{Buyer, Fate};
use super::crowd::Crowd;
use super::report::{Calibration, Horizon, Reliability};

use boxoffice_domain::{Eta, Place};

/// The most samples that are kept: at this number every other one is dropped, and sampling becomes half as frequent.
const SAMPLES_MAX: usize = 200_000;
/// How many waiting buyers are sampled, each time.
const SAMPLED: u32 = 8;
/// Random attempts to find a waiting buyer.
const TRIES: u32 = 16;
/// Names and ends of the horizons, seconds.
const HORIZONS: [(&str, f64); 5] =
    [("under 15 s", 15.0), ("under 1 min", 60.0), ("under 5 min", 300.0), ("under 20 min", 1_200.0), ("longer", f64::INFINITY)];
const TENTHS: usize = 10;

/// The range and chance that a buyer was shown.
struct Sample {
    buyer: u32,
    /// How long promotion had run by then.
    ran_ms: u64,
    eta: Option<Eta>,
    chance: Option<u16>,
}

#[derive(Default)]
pub(super) struct Judge {
    while_waiting: Samples,
    on_joining: Samples,
    /// How long promotion has run: pauses and a sold-out hall do not count.
    pub(super) ran_ms: u64,
}

#[derive(Default)]
struct Samples {
    all: Vec<Sample>,
    /// One of so many is kept.
    every: u32,
    skipped: u32,
}

impl Samples {
    fn add(&mut self, sample: Sample) {
        self.skipped += 1;
        if self.skipped < self.every {
            return;
        }
        self.skipped = 0;
        self.all.push(sample);
        if self.all.len() >= SAMPLES_MAX {
            let mut at = 0;
            self.all.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            self.every = (self.every * 2).max(2);
        }
    }
}

impl Judge {
    pub(super) fn joined(&mut self, buyer: u32, place: &Place) {
        self.on_joining.add(Sample { buyer, ran_ms: self.ran_ms, eta: place.eta, chance: place.chance });
    }

    /// Samples some of the waiting buyers among the first `arrived`.
    pub(super) fn sample(&mut self, crowd: &mut Crowd, arrived: u32, buyers: &[Buyer], place: impl Fn(u32) -> Option<Place>) {
        for _ in 0..SAMPLED.min(arrived) {
            let mut tries = (0..TRIES).map(|_| crowd.any(arrived));
            let Some(buyer) = tries.find(|buyer| buyers[*buyer as usize].fate == Fate::Waiting) else { return };
            if let Some(place) = place(buyer) {
                self.while_waiting.add(Sample { buyer, ran_ms: self.ran_ms, eta: place.eta, chance: place.chance });
            }
        }
    }

    pub(super) fn calibration(&self, buyers: &[Buyer], ran_at: &[u32]) -> (Calibration, Calibration) {
        (judged(&self.while_waiting.all, buyers, ran_at), judged(&self.on_joining.all, buyers, ran_at))
    }

    /// For ten classes of shown chances, how often a seat was found. Buyers that left before or did not come do not count.
    pub(super) fn reliability(&self, buyers: &[Buyer]) -> Vec<Reliability> {
        let mut classes = [(0u64, 0.0, 0u64); TENTHS];
        for sample in &self.while_waiting.all {
            let (Some(chance), fate) = (sample.chance, buyers[sample.buyer as usize].fate) else { continue };
            if matches!(fate, Fate::GaveUp | Fate::NoShow) {
                continue;
            }
            let (count, shown, came_true) = &mut classes[(usize::from(chance) * TENTHS / 1_001).min(TENTHS - 1)];
            *count += 1;
            *shown += f64::from(chance) / 1_000.0;
            *came_true += u64::from(!matches!(fate, Fate::Waiting | Fate::FoundNothing));
        }
        let class = |(count, shown, came_true): (u64, f64, u64)| Reliability {
            told: round(shown / count as f64),
            came_true: round(came_true as f64 / count as f64),
            answers: count,
        };
        classes.into_iter().filter(|(count, ..)| *count > 0).map(class).collect()
    }
}

fn judged(samples: &[Sample], buyers: &[Buyer], ran_at: &[u32]) -> Calibration {
    let mut horizons = HORIZONS.map(|(name, _)| Horizon { horizon: name, ..Horizon::default() });
    let mut widths_s = 0.0;
    for sample in samples {
        let (Some(eta), fate) = (sample.eta, buyers[sample.buyer as usize].fate) else { continue };
        if matches!(fate, Fate::GaveUp | Fate::Waiting) {
            continue;
        }
        let seconds = (u64::from(ran_at[sample.buyer as usize]).saturating_sub(sample.ran_ms)) as f64 / 1e3;
        let at = HORIZONS.iter().take_while(|(_, end_s)| f64::from(eta.mid_s) >= *end_s).count().min(HORIZONS.len() - 1);
        let horizon = &mut horizons[at];
        horizon.judged += 1;
        widths_s += f64::from(eta.high_s - eta.low_s);
        horizon.sooner += u64::from(seconds < f64::from(eta.low_s));
        horizon.later += u64::from(seconds > f64::from(eta.high_s));
    }
    let judged = horizons.iter().map(|one| one.judged).sum();
    let wrong: u64 = horizons.iter().map(|one| one.sooner + one.later).sum();
    for one in &mut horizons {
        one.right = share(one.judged - one.sooner - one.later, one.judged);
    }
    Calibration {
        judged,
        right: share(judged - wrong, judged),
        width_s: (judged > 0).then(|| round(widths_s / judged as f64)),
        horizons: horizons.into_iter().filter(|one| one.judged > 0).collect(),
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| round(part as f64 / whole as f64))
}

/// To four digits behind the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The rank correlation (C. Spearman, 1904) of two orders without ties: `places` stand in the order of service.
pub(super) fn rank_correlation(places: &[u32]) -> Option<f64> {
    let count = places.len() as u64;
    if count < 2 {
        return None;
    }
    let mut served: Vec<u32> = (0..places.len() as u32).collect();
    served.sort_unstable_by_key(|at| places[*at as usize]);
    let squares: u128 = served.iter().enumerate().map(|(rank, at)| u128::from(rank.abs_diff(*at as usize) as u64).pow(2)).sum();
    let most = count as f64 * (count as f64 * count as f64 - 1.0);
    Some(1.0 - 6.0 * squares as f64 / most)
}
