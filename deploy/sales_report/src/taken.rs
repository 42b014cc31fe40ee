//! A batch of events between the broker and the report.

/// The most events of one transaction: with more there are fewer flushes, and more is repeated after a crash.
pub(crate) const BATCH_MAX: usize = 500;

/// Events that were taken from a broker and are not yet acknowledged.
pub(crate) struct Taken {
    pub(crate) events: Vec<Vec<u8>>,
    /// Where reading continues, if the broker does not keep that for its reader.
    pub(crate) position: Option<u64>,
}
