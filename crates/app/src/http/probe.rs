//! What readiness checks besides store and queue.

use boxoffice_ports::Source;
use futures_util::future::BoxFuture;

/// What a check found.
#[derive(Debug)]
pub enum Health {
    Good,
    /// It works, but an operator should look at it.
    Impaired(String),
    /// It does not work, for a reason that may be shown to any client.
    Down(String),
    /// It does not work; the reason is only logged.
    Failed(Source),
}

impl Health {
    /// Of nodes that work while most of them do; `down` names those that do not.
    pub fn of_nodes(all: usize, down: &[&str]) -> Self {
        let named = || format!("{} of {all} do not answer: {}", down.len(), down.join(", "));
        match all - down.len() {
            _ if down.is_empty() => Self::Good,
            up if 2 * up > all => Self::Impaired(named()),
            _ => Self::Down(named()),
        }
    }
}

/// A dependency without which commands cannot be served.
pub trait Probe: Send + Sync {
    fn name(&self) -> &'static str;
    fn check(&self) -> BoxFuture<'_, Health>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_work_while_most_of_them_do() {
        assert!(matches!(Health::of_nodes(5, &[]), Health::Good));
        for (all, down, works) in [(5, 1, true), (5, 2, true), (5, 3, false), (4, 1, true), (4, 2, false), (3, 3, false)] {
            let names = &["redis://a", "redis://b", "redis://c"][..down];
            let (found, detail) = match Health::of_nodes(all, names) {
                Health::Impaired(detail) => (true, detail),
                Health::Down(detail) => (false, detail),
                other => panic!("{other:?}"),
            };
            assert_eq!((found, names.iter().all(|name| detail.contains(name))), (works, true), "{down} of {all}: {detail}");
        }
    }
}
