//! What every command log must do.
//!
//! Each case has a log of its own, empty and with several shards. Readers of an instance are gone when they are dropped:
//! what they took and did not acknowledge is for the next. What follows a command in its shard follows it again
//! on redelivery, so a later command that has arrived proves that an earlier one will not.

mod answers;
mod case;
mod commands;
mod dead_letters;
mod taking;

pub use self::answers::*;
pub use self::case::LogBroker;
pub use self::commands::*;
pub use self::dead_letters::*;

/// One test for each case: `command_log_contract!(make_broker)`, where `async fn make_broker() -> Box<dyn LogBroker>`
/// makes a new, empty log with three shards or more.
#[macro_export]
macro_rules! command_log_contract {
    ($make:path) => {
        $crate::contract_cases!($make; command_log {
            what_was_appended_is_taken_as_it_was_and_in_order
            what_was_acknowledged_does_not_come_again
            what_was_not_acknowledged_comes_again
            acknowledging_covers_what_was_taken_and_nothing_else
            acknowledging_begins_with_what_was_taken_first
            no_more_is_taken_than_asked_for
            what_was_appended_at_once_may_be_taken_in_parts
            a_reader_that_stops_taking_misses_nothing
            two_instances_share_the_shards_and_lose_nothing
            appends_of_many_callers_at_once_are_all_there
            dead_letters_are_kept_with_their_reason_and_block_no_other_command
            unreadable_messages_are_dead_letters_and_block_no_command
            answers_reach_their_instance_alone
            a_reader_that_stops_waiting_misses_no_answer
            answers_to_an_unknown_instance_do_no_harm
        });
    };
}
