//! One buyer, and how far they have come.

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    ToCome,
    Waiting,
    GaveUp,
    InTurn,
    Bought,
    /// Had a turn, could have bought and did not.
    Had,
    /// Had a turn and found no seat free.
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
