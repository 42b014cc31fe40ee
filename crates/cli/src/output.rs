//! The answer of a command, on standard output, and the text of an error.

use anyhow::Context as _;
use std::io::Write as _;

/// An error and its causes on one line; a cause whose text the error already contains is not repeated.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
        .unwrap_or_default()
}

/// Prints lines to standard output. A pipe that its reader has closed is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_named_once() {
        let store = boxoffice_ports::StoreError::Unavailable("disk full".into());
        assert_eq!(describe(&anyhow::Error::from(store).context("import")), "import: the store is unavailable: disk full");
    }
}
