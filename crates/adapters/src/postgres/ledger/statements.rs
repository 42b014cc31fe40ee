//! The statements that every session of the ledger prepares.

use super::{held, load, write};
use crate::postgres::session::{Known, SelectReadOnly, known};

pub(super) fn all_statements() -> Vec<Known> {
    [load::statements_of_load(), write::statements_of_write(), held::statements_of_held(), vec![known::<SelectReadOnly>()]].concat()
}
