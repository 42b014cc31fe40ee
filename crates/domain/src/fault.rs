//! What is wrong with a document or a setting from outside.

/// What is wrong with one field of a document; `field` is a path such as `dates[0].seats[2].price`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub field: String,
    pub reason: String,
}
