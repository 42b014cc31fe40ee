//! The bounds of a room that several of its parts keep.

/// The most promotions of one tick, so that a step stays short.
pub const PROMOTIONS_PER_TICK_MAX: u32 = 2_000;
/// The window over which the admission rate is measured, seconds.
pub const RATE_WINDOW_S: i64 = 60;
/// How long an ended entry can still be asked for, seconds; afterwards it reads as expired.
pub const ENDED_KEPT_S: i64 = 24 * 3_600;
