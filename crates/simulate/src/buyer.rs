//! One buyer, from joining to the end.

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Joining,
    Waiting,
    GaveUp,
    InTurn,
    Bought,
    /// Had a turn and seats, and did not buy.
    Declined,
    /// Had a turn and found no free seat.
    FoundNothing,
    NoShow,
}

#[derive(Clone, Copy)]
pub(super) struct Buyer {
    pub(super) came_ms: u32,
    pub(super) promoted_ms: u32,
    pub(super) place: u32,
    pub(super) holds: u16,
    pub(super) lane: u8,
    pub(super) is_bot: bool,
    pub(super) fate: Fate,
}
