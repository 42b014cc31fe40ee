//! What every port's errors are made of.

/// The error of an adapter's technology, kept as a source and never matched on.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// The store failed. Nothing was changed, or it is unknown whether.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or does not answer in time: the call can be retried later.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A defect: what was read or written is not valid.
    #[error("the store failed: {0}")]
    Broken(#[source] Source),
}
