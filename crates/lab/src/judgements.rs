//! Judgements of each strategy that no single run shows. The measured columns stand beside them in every table, so that
//! readers can compare the words with the figures.

/// What a strategy is good and bad at, and how it behaves when a part of the system dies.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    pub strategy: &'static str,
    pub strengths: &'static str,
    pub weaknesses: &'static str,
    pub when_a_part_dies: &'static str,
    pub choose_when: &'static str,
}

const JUDGEMENTS: [Judgement; 10] = [
    Judgement {
        strategy: "combining",
        strengths: "one commit for all that queued while the last one ran, so a hot row costs a fraction of a flush; arrival order within an instance; nothing beside the database",
        weaknesses: "two instances contend for the row lock of one hot row, so it gains least where every instance has a few callers; a batch waits for its slowest row",
        when_a_part_dies: "an instance: its unanswered commands, which the same key repeats; the database: 503 until it is back, then the queue goes on",
        choose_when: "nearly always: it is the default",
    },
    Judgement {
        strategy: "simple",
        strengths: "one Redis command decides; a losing caller knows at once and costs the database nothing",
        weaknesses: "refuses commands that could have waited: under contention most callers get busy and must retry, in no order",
        when_a_part_dies: "Redis: 503 at once; the holder of a lock: the others get busy until the lease ends; the ledger stays right",
        choose_when: "many callers want one seat, and a quick refusal is worth more than a place in a line",
    },
    Judgement {
        strategy: "spin",
        strengths: "the simplest lock that waits; no subscription, works with any Redis",
        weaknesses: "retries in a loop: the longer the line, the more Redis commands for one success, and waits are uneven",
        when_a_part_dies: "Redis: 503 within its response time-out; the holder of a lock: waiters go on when the lease ends",
        choose_when: "contention is rare and short, and subscriptions are not available",
    },
    Judgement {
        strategy: "pubsub",
        strengths: "waiters sleep until the lock is released: few Redis commands however long the line",
        weaknesses: "one commit for each command, and a wake-up between two of them; a lost message costs a poll's interval",
        when_a_part_dies: "Redis: 503 within its response time-out, subscriptions come back by themselves; a lost wake-up: the fallback poll",
        choose_when: "several instances contend for the same few rows, and the waiting is to be kept off the database",
    },
    Judgement {
        strategy: "redlock",
        strengths: "no single Redis is needed: any majority of the nodes decides",
        weaknesses: "every acquire and release goes to all nodes, so it is the slowest lock; relies on clocks and gives no fencing, which the ledger's version check makes up for",
        when_a_part_dies: "a minority of nodes: nothing fails; a majority: 503 within the wait; a paused holder: its write is refused by version",
        choose_when: "the locks must outlive a Redis node and no Redis that fails over is available",
    },
    Judgement {
        strategy: "pessimistic",
        strengths: "the row's own lock, held for one transaction: nothing to expire, nothing beside the database",
        weaknesses: "a hot row changes once a flushed commit, and every waiter keeps a connection",
        when_a_part_dies: "an instance: its locks go with its connections; a hung one: others get 503 after the lock time-out",
        choose_when: "contention is moderate and the fewest moving parts are wanted",
    },
    Judgement {
        strategy: "optimistic",
        strengths: "locks nothing: the cheapest where commands do not meet",
        weaknesses: "on a hot row almost every attempt conflicts and is wasted; a long wait brings a caller no nearer to success",
        when_a_part_dies: "an instance: nothing is left behind; the database: 503 until it is back",
        choose_when: "many rows, few conflicts",
    },
    Judgement {
        strategy: "memory",
        strengths: "a mutex in this process: no service, no round trip",
        weaknesses: "covers one instance only: several instances conflict at the ledger's versions and retry; one commit for each command",
        when_a_part_dies: "the instance: its locks end with it, and nothing else",
        choose_when: "tests, and one instance that must commit commands one by one",
    },
    Judgement {
        strategy: "kafka",
        strengths: "a burst waits in a log that survives every instance; one commit for all that the partition holds, in its order; an accepted command is always decided",
        weaknesses: "a command goes to the broker and back before it is decided; one partition has one consumer, so a hot key is as fast as one instance",
        when_a_part_dies: "an instance: its partitions go to others, which decide what it did not commit; the broker: 503 for new commands until it is back; the database: commands wait in the log",
        choose_when: "bursts must be absorbed and decided later, and a Kafka is there already",
    },
    Judgement {
        strategy: "rabbitmq",
        strengths: "a queue with a single active consumer keeps the order of its shard and moves to another instance by itself; one acknowledgement for each commit",
        weaknesses: "every command is written by the broker before it is decided; the instance that started first consumes every shard",
        when_a_part_dies: "an instance: the next consumer gets what was not acknowledged; the broker: 503 for new commands until it is back, or while it blocks its producers; the database: commands wait in the queue",
        choose_when: "bursts must be absorbed and decided later, and a RabbitMQ is there already",
    },
];

/// The judgement of a strategy.
pub fn of(strategy: &str) -> Option<&'static Judgement> {
    JUDGEMENTS.iter().find(|judgement| judgement.strategy == strategy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_app::config::StrategyName;

    #[test]
    fn every_strategy_that_can_be_configured_is_judged_once() {
        for name in StrategyName::ALL {
            assert!(of(name.name()).is_some(), "{name:?}");
        }
        assert_eq!(JUDGEMENTS.len(), StrategyName::ALL.len());
        assert_eq!(of("fastest"), None);
    }
}
