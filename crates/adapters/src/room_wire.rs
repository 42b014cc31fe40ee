//! Inputs of waiting rooms as bytes, as logs keep them: a version, then postcard.
//!
//! postcard writes no names, so [`RoomInput`]'s variants keep their fields and their order for ever: a test decodes bytes
//! written by earlier versions. Extra bytes after a record are refused, and so is an unknown version.

use boxoffice_domain::waiting::RoomInput;
use boxoffice_ports::{RoomLogError, Source};

const VERSION: u8 = 1;

pub(crate) fn encode(inputs: &[RoomInput]) -> Result<Vec<u8>, RoomLogError> {
    postcard::to_extend(inputs, vec![VERSION]).map_err(broken)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<RoomInput>, RoomLogError> {
    match bytes.split_first() {
        Some((&VERSION, inputs)) => match postcard::take_from_bytes(inputs).map_err(broken)? {
            (inputs, []) => Ok(inputs),
            (_, rest) => Err(broken(format!("{} bytes behind a record", rest.len()))),
        },
        Some((version, _)) => Err(broken(format!("a record of version {version}"))),
        None => Err(broken("an empty record")),
    }
}

fn broken(error: impl Into<Source>) -> RoomLogError {
    RoomLogError::Broken(error.into())
}

#[cfg(test)]
mod tests;
