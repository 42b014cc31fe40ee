//! Money is an integer of minor units of the one configured currency; a point is worth one minor unit.

/// Minor units (cents, won). Signed, because a journal entry may take away.
pub type Money = i64;

/// Reward points.
pub type Points = i64;

/// `percent` of `amount`, rounded down. `amount` must not be negative; the product is taken in 128 bits.
pub fn percent_of(amount: Money, percent: u32) -> Points {
    debug_assert!(amount >= 0);
    i64::try_from(i128::from(amount) * i128::from(percent) / 100).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_rounds_down() {
        for (amount, percent, points) in [
            (0, 5, 0),
            (19, 5, 0),
            (20, 5, 1),
            (132_000, 5, 6_600),
            (132_019, 5, 6_600),
            (99, 0, 0),
            (99, 100, 99),
            (i64::MAX, 100, i64::MAX),
        ] {
            assert_eq!(percent_of(amount, percent), points, "{percent} % of {amount}");
        }
    }
}
