//! How fast turns will end, from now on.

use super::belief::Belief;
use super::bins::{LEAST, goes_on_at};
use serde::{Deserialize, Serialize};

/// The steps of a curve, and how many of them make up a mean length.
pub(super) const STEPS: usize = 48;
const STEPS_PER_LENGTH: f64 = 8.0;
const STEP_MIN_S: f64 = 0.25;

/// How many turns will have ended after each step, those included that begin meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) step_s: f64,
    /// From 0, at the beginning of the first step.
    pub(crate) ended: Vec<f64>,
    /// Beyond the last step, per second.
    pub(crate) rate: f64,
    /// The standard deviation of the logarithm of how fast turns end.
    pub(crate) deviation: f64,
}

impl Curve {
    /// `ages` of the turns that go on, as in [`Observed`](super::belief::Observed) but all counted in full; `no_shows` the
    /// ages of the other turns that go on, and how many each.
    pub(super) fn drawn(
        belief: &Belief,
        ages: &[(f64, f64)],
        no_shows: impl Iterator<Item = (f64, f64)>,
        active: f64,
        longest_s: f64,
    ) -> Self {
        let step_s = (belief.length_s / STEPS_PER_LENGTH).max(STEP_MIN_S);
        let over = |s: f64| if s >= longest_s { 1.0 } else { 1.0 - goes_on_at(&belief.goes_on, s) };
        let mut ends = vec![0.0; STEPS + 1];
        for (count, age_s) in ages {
            let go_on = (1.0 - over(*age_s)).max(LEAST.sqrt());
            for (step, ends) in ends.iter_mut().enumerate().skip(1) {
                let until_s = age_s + step as f64 * step_s;
                *ends += count * (over(until_s) - over(until_s - step_s)) / go_on;
            }
        }
        for (count, age_s) in no_shows {
            let step = ((longest_s - age_s).max(0.0) / step_s) as usize + 1;
            if let Some(ends) = ends.get_mut(step) {
                *ends += count;
            }
        }
        // Turns that begin in the middle of a step: which share of them ends so many steps later.
        let all_over = |s: f64| (1.0 - belief.no_shows) * over(s) + if s >= longest_s { belief.no_shows } else { 0.0 };
        let middle = |step: usize| all_over((step as f64 + 0.5) * step_s);
        let shares: Vec<_> = (0..STEPS).map(|step| middle(step) - if step == 0 { 0.0 } else { middle(step - 1) }).collect();
        for step in 1..=STEPS {
            let follow: f64 = (1..step).map(|began| ends[began] * shares[step - began]).sum();
            ends[step] = (ends[step] + follow) / (1.0 - shares[0]);
        }
        let ended = ends.iter().scan(0.0, |sum, ends| {
            *sum += ends;
            Some(*sum)
        });
        Self { step_s, ended: ended.collect(), rate: active / belief.length_s, deviation: belief.deviation }
    }

    pub(super) fn ended_after(&self, seconds: f64) -> f64 {
        let at = seconds / self.step_s;
        let step = (at as usize).min(STEPS - 1);
        self.ended[step] + (at - step as f64) * (self.ended[step + 1] - self.ended[step])
    }
}
