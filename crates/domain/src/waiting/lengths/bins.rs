//! Lengths in bins of their logarithm, and a life table over them: the share that goes on where each bin begins.

/// Lengths are counted in bins of their logarithm. The first begins at nothing and ends with it; the last has no end.
pub(super) const BINS: usize = 36;
pub(super) const BIN: f64 = 0.25;
/// Turns shorter than this share of the longest are short.
pub(super) const SHORT: f64 = 1.0 / 30.0;
/// Stands for a probability of zero.
pub(super) const LEAST: f64 = 1e-12;

pub(super) fn bin(s: f64) -> usize {
    ((s.max(1.0).ln() / BIN) as usize).min(BINS - 1)
}

/// Where a bin begins.
pub(super) fn edge_s(bin: usize) -> f64 {
    if bin == 0 { 0.0 } else { (bin as f64 * BIN).exp() }
}

/// The first bin of turns that are not short.
pub(super) fn short(longest_s: f64) -> usize {
    bin(longest_s * SHORT)
}

/// By a life table; straight between its entries, over the logarithm.
pub(super) fn goes_on_at(table: &[f64], s: f64) -> f64 {
    let bin = bin(s);
    let part = if bin == 0 { s.max(0.0) / edge_s(1) } else { (s.ln() / BIN - bin as f64).min(1.0) };
    table[bin] + part * (table[bin + 1] - table[bin])
}

/// The mean of lengths that are cut, by a life table.
pub(super) fn mean_s(table: &[f64], cut_s: f64) -> f64 {
    let bins = (0..BINS).map(|bin| (edge_s(bin), edge_s(bin + 1).min(cut_s))).filter(|(from_s, to_s)| from_s < to_s);
    bins.map(|(from_s, to_s)| (to_s - from_s) * goes_on_at(table, (from_s + to_s) / 2.0)).sum()
}
