//! What a command answers, on standard output, and how an error reads.

use anyhow::Context as _;
use std::io::Write as _;

/// An error and its causes on one line; what an error already says of its cause is not said twice.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
        .unwrap_or_default()
}

/// A line, or several, to standard output. Whoever reads it may have enough: a closed pipe is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let store = boxoffice_ports::StoreError::Unavailable("disk full".into());
        assert_eq!(describe(&anyhow::Error::from(store).context("import")), "import: the store is unavailable: disk full");
    }
}
