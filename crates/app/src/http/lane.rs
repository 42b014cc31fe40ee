//! Names of lanes, as tokens carry them and as the configuration lists them.

use boxoffice_domain::text;

/// The longest name of a lane, characters.
pub(crate) const LANE_NAME_MAX: usize = 64;

/// Whether it can name a lane; any other text names none.
pub(crate) fn is_lane(name: &str) -> bool {
    !name.is_empty() && text::fault(name, LANE_NAME_MAX).is_none()
}
