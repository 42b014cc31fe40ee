//! Scripts that Redis runs.

use redis::{Cmd, ToRedisArgs};

/// A script, sent by its hash; sent whole to a node that does not know it yet.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    pub(super) fn command(&self, known: bool, keys: &[String], arguments: &impl ToRedisArgs) -> Cmd {
        let mut command = if known { redis::cmd("EVALSHA") } else { redis::cmd("EVAL") };
        command.arg(if known { &self.hash } else { self.text }).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}
