//! Files that a command reads whole.

use anyhow::{Context as _, ensure};
use std::path::Path;

/// The largest file, bytes: more than a draw of a million buyers takes.
const FILE_MAX: u64 = 256 << 20;

/// The file's bytes; errors name the file.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let name = file.display();
    let size = std::fs::metadata(file).with_context(|| name.to_string())?.len();
    ensure!(size <= FILE_MAX, "{name}: larger than {FILE_MAX} bytes");
    std::fs::read(file).with_context(|| name.to_string())
}
