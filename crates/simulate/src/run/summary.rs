//! The report on a run that is over.

use super::{Run, at};
use crate::judge::{rank_correlation, round};
use crate::report::{Report, SCHEMA, Seats, Utilisation, Waits};

impl Run<'_> {
    pub(super) fn report(mut self) -> Report {
        self.record();
        self.fates.sent_away = self.waiting;
        let after_start_s = |ms: u64| ms.saturating_sub(self.start_ms) as f64 / 1e3;
        let (eta_while_waiting, eta_on_joining) = self.judge.calibration(&self.buyers, &self.ran_at);
        let lanes = self.world.lanes.len() as u8;
        let of_lane = |lane: u8| {
            let served = self.served.iter().map(|at| &self.buyers[*at as usize]).filter(|buyer| buyer.lane == lane);
            rank_correlation(&served.map(|buyer| buyer.place).collect::<Vec<_>>()).map(round)
        };
        let places: Vec<_> = self.served.iter().map(|at| self.buyers[*at as usize].place).collect();
        let crowded = self.sums.crowded > 0.0;
        let rate = self.world.per_interval.map(|rate| f64::from(rate.count) / f64::from(rate.seconds));
        Report {
            schema: SCHEMA,
            world: self.world.clone(),
            duration_s: after_start_s(self.now_ms),
            buyers: self.fates,
            waiting: self.waits(),
            seats: Seats {
                sold: self.sold,
                sold_out_after_s: self.sold_out_ms.map(after_start_s),
                unsold_min: round(self.sums.unsold / f64::from(self.world.seats) / 60e3),
                idle_min: round(self.sums.idle / 60e3),
            },
            utilisation: Utilisation {
                of_max_active: crowded.then(|| round(self.sums.active / self.sums.max_active)),
                of_rate: rate.filter(|_| crowded).map(|rate| round(self.sums.promoted / (rate * self.sums.crowded / 1e3)).min(1.0)),
                active_most: self.sums.active_most,
                max_active_most: self.sums.max_active_most,
            },
            fairness: rank_correlation(&places).map(round),
            fairness_by_lane: (0..=lanes).map(of_lane).collect(),
            eta_while_waiting,
            eta_on_joining,
            eta_by_the_room: self.room.counts(at(self.now_ms)).eta_calibration.map(round),
            chance: self.judge.reliability(&self.buyers),
            timeline: self.timeline,
        }
    }

    fn waits(&self) -> Option<Waits> {
        let wait = |at: &u32| {
            let buyer = &self.buyers[*at as usize];
            u64::from(buyer.promoted_ms) - u64::from(buyer.came_ms).max(self.start_ms).min(u64::from(buyer.promoted_ms))
        };
        let mut waits: Vec<u64> = self.served.iter().map(wait).collect();
        waits.sort_unstable();
        let last = waits.len().checked_sub(1)?;
        let quantile_s = |share: f64| waits[(last as f64 * share).round() as usize] as f64 / 1e3;
        let mean_s = waits.iter().sum::<u64>() as f64 / waits.len() as f64 / 1e3;
        Some(Waits { median_s: quantile_s(0.5), p90_s: quantile_s(0.9), p99_s: quantile_s(0.99), mean_s: round(mean_s) })
    }
}
