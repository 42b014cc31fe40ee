//! The suites every adapter must pass.
