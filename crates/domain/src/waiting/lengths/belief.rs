//! What is believed of the turns to come, from what was seen of those that ended and of those that go on.

use super::bins::{BIN, BINS, LEAST, bin, edge_s, mean_s, short};
use super::law::Law;
use serde::{Deserialize, Serialize};

/// The grid: so many medians by so many spreads. The first looks narrow it down, each later one follows.
const POINTS: usize = 6;
const LOOKS_AT_FIRST: usize = 4;
/// The share of no-shows that is assumed at first, as if of so many turns.
const NO_SHOWS: f64 = 0.05;
const NO_SHOWS_TURNS: f64 = 20.0;
/// In each bin of the life table the law counts as much as so many turns that were seen.
const LAW_TURNS: f64 = 10.0;
/// How fast turns will end is never known better than this, as a share.
const UNKNOWN: f64 = 0.02;

/// What is believed of the turns to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Belief {
    pub(super) at_us: i64,
    pub(super) no_shows: f64,
    /// The share that goes on where each bin begins, of the turns that a buyer comes for.
    pub(super) goes_on: Vec<f64>,
    /// The mean of all.
    pub(super) length_s: f64,
    pub(super) deviation: f64,
}

/// What was seen, each turn by what it still counts.
pub(super) struct Observed<'a> {
    /// Turns that were ended before their time, by length.
    pub(super) ended: &'a [f64],
    /// Turns that a buyer came for and that went on to their end.
    pub(super) over: f64,
    pub(super) came: f64,
    pub(super) no_shows: f64,
    /// The turns that go on, without no-shows: how many, and their mean age.
    pub(super) ages: &'a [(f64, f64)],
}

impl Observed<'_> {
    /// Narrows `grid` down as well; `None` there: nothing was looked at before.
    pub(super) fn believe(&self, grid_before: &mut Option<[(f64, f64); 2]>, at_us: i64, longest_s: f64) -> Belief {
        let turns = NO_SHOWS_TURNS + self.came + self.no_shows;
        let no_shows = (NO_SHOWS * NO_SHOWS_TURNS + self.no_shows) / turns;
        let mixed_s = |attended_s: f64| (1.0 - no_shows) * attended_s + no_shows * longest_s;
        // The law does not cover short turns: what was seen of them holds for every law.
        let short_s = edge_s(short(longest_s));
        let (table, at_risk) = self.table(Law::before(longest_s));
        let (until_s, longer) = (mean_s(&table, short_s), table[short(longest_s)]);
        let mut grid = grid_before.unwrap_or_else(|| Law::anywhere(longest_s));
        let (mut law, mut deviation) = (Law::before(longest_s), 0.0);
        for _ in 0..if grid_before.is_some() { 1 } else { LOOKS_AT_FIRST } {
            let at = |of: usize, point: usize| grid[of].0 + grid[of].1 * ((2 * point + 1) as f64 / POINTS as f64 - 1.0);
            let laws = (0..POINTS * POINTS).map(|point| (at(0, point / POINTS), at(1, point % POINTS)));
            let points = laws.map(|(median_ln, spread_ln)| {
                let law = Law { median_ln, spread: spread_ln.exp() };
                let length_ln = mixed_s(until_s + longer * law.longer_s(longest_s)).ln();
                (self.likelihood_ln(law, longest_s) + law.before_ln(longest_s), [median_ln, spread_ln, length_ln])
            });
            let [median_ln, spread_ln, length_ln] = means_and_errors(&points.collect::<Vec<_>>());
            (law, deviation) = (Law { median_ln: median_ln.0, spread: spread_ln.0.exp() }, length_ln.1);
            for (side, (mean, error)) in grid.iter_mut().zip([median_ln, spread_ln]) {
                // No narrower than two points: where the truth lies between them it must be found.
                *side = (mean, (3.0 * error).max(2.0 * side.1 / POINTS as f64));
            }
        }
        *grid_before = Some(grid);
        let (goes_on, _) = self.table(law);
        let attended_s = mean_s(&goes_on, longest_s);
        let length_s = mixed_s(attended_s);
        let of_no_shows = (no_shows * (1.0 - no_shows) / turns).sqrt() * (longest_s - attended_s) / length_s;
        let of_short = (longer * (1.0 - longer) / (at_risk[0] + LAW_TURNS)).sqrt() * law.longer_s(longest_s) / length_s;
        let errors = [deviation, of_no_shows, of_short, UNKNOWN];
        Belief { at_us, no_shows, goes_on, length_s, deviation: errors.iter().map(|error| error * error).sum::<f64>().sqrt() }
    }

    /// How likely this law makes what was seen of turns that are not short, as a logarithm.
    fn likelihood_ln(&self, law: Law, longest_s: f64) -> f64 {
        let short = short(longest_s);
        let (mut sum, mut turns) = (0.0, 0.0);
        for (bin, count) in self.ended.iter().enumerate().skip(short).filter(|(_, count)| **count > 0.0) {
            sum += count * (law.goes_on(bin as f64 * BIN) - law.goes_on((bin + 1) as f64 * BIN)).max(LEAST).ln();
            turns += count;
        }
        let go_on = self.ages.iter().copied().chain([(self.over, longest_s)]);
        for (count, age_s) in go_on.filter(|(count, age_s)| *count > 0.0 && bin(*age_s) >= short) {
            sum += count * law.goes_on(age_s.ln()).max(LEAST).ln();
            turns += count;
        }
        sum - turns * law.goes_on(short as f64 * BIN).max(LEAST).ln()
    }

    /// The life table, and how many turns reached each bin. One that goes on within a bin is half a turn of it.
    fn table(&self, law: Law) -> (Vec<f64>, Vec<f64>) {
        let mut at_risk = vec![0.0; BINS];
        for (count, age_s) in self.ages {
            at_risk[..bin(*age_s)].iter_mut().for_each(|turns| *turns += count);
            at_risk[bin(*age_s)] += count / 2.0;
        }
        let mut longer = self.over;
        for bin in (0..BINS).rev() {
            longer += self.ended[bin];
            at_risk[bin] += longer;
        }
        let begins = |bin: usize| if bin == 0 { 1.0 } else { law.goes_on(bin as f64 * BIN).max(LEAST) };
        let mut table = vec![1.0; BINS + 1];
        for bin in 0..BINS {
            let by_law = 1.0 - begins(bin + 1) / begins(bin);
            table[bin + 1] = table[bin] * (1.0 - (self.ended[bin] + LAW_TURNS * by_law) / (at_risk[bin] + LAW_TURNS));
        }
        (table, at_risk)
    }
}

/// Of three values at each point, with the logarithm of the point's weight: their means and standard deviations.
fn means_and_errors(points: &[(f64, [f64; 3])]) -> [(f64, f64); 3] {
    let most = points.iter().map(|(ln, _)| *ln).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<_> = points.iter().map(|(ln, _)| (ln - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    std::array::from_fn(|of| {
        let mean =
            |value: &dyn Fn(f64) -> f64| points.iter().zip(&weights).map(|((_, all), weight)| weight * value(all[of])).sum::<f64>() / sum;
        let middle = mean(&|value| value);
        (middle, mean(&|value| (value - middle) * (value - middle)).sqrt())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_table_follows_the_law_where_nothing_was_seen_and_what_was_seen_elsewhere() {
        const LONGEST_S: f64 = 600.0;
        let (law, mut ended) = (Law::before(LONGEST_S), [0.0; BINS]);
        let table = |ended: &[f64], ages| Observed { ended, over: 0.0, came: 0.0, no_shows: 0.0, ages }.table(law).0;
        let by_law = table(&ended, &[]);
        assert!((by_law[20] - law.goes_on(20.0 * BIN)).abs() < 1e-6, "{by_law:?}");
        assert!((mean_s(&by_law, LONGEST_S) / law.mean_s(LONGEST_S)).ln().abs() < 0.02);
        ended[bin(10.0)] = 1_000.0;
        let seen = table(&ended, &[(1_000.0, 30.0)]);
        assert!((seen[bin(10.0) + 1] - 0.5).abs() < 0.02, "{seen:?}");
    }
}
