//! The entrants of a comparison: a strategy as it is configured, or in one of several set-ups worth comparing.

use boxoffice_app::config::{Settings, StrategyName};

/// One row of every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entrant {
    pub strategy: StrategyName,
    /// Of Kafka's topics; `None` for other strategies.
    pub partitions: Option<u32>,
}

impl Entrant {
    /// A strategy's entrants: for Kafka one with a single partition, and one with the configured number.
    pub(super) fn all_of(strategy: StrategyName, base: &Settings) -> Vec<Self> {
        let mut partitions = match strategy {
            StrategyName::Kafka => vec![Some(1), Some(base.kafka.partitions)],
            _ => vec![None],
        };
        partitions.dedup();
        partitions.into_iter().map(|partitions| Self { strategy, partitions }).collect()
    }

    pub(super) fn title(self) -> String {
        title(self.strategy.name(), self.partitions)
    }
}

/// The name of an entrant in tables.
pub(super) fn title(strategy: &str, partitions: Option<u32>) -> String {
    match partitions {
        None => strategy.to_owned(),
        Some(1) => format!("{strategy}, 1 partition"),
        Some(partitions) => format!("{strategy}, {partitions} partitions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_takes_part_with_one_partition_and_with_the_configured_number() {
        let titles = |strategy, partitions| {
            let mut base = Settings::defaults().unwrap();
            base.kafka.partitions = partitions;
            Entrant::all_of(strategy, &base).into_iter().map(Entrant::title).collect::<Vec<_>>()
        };
        assert_eq!(titles(StrategyName::Kafka, 8), ["kafka, 1 partition", "kafka, 8 partitions"]);
        assert_eq!(titles(StrategyName::Kafka, 1), ["kafka, 1 partition"]);
        assert_eq!(titles(StrategyName::Rabbitmq, 8), ["rabbitmq"]);
    }
}
