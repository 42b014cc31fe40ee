//! What every log of waiting rooms must do: one order for all readers, no record twice, none between, under any
//! concurrency.
//!
//! Each case has two instances on one store. [`reader::Reader`] checks of every answer what holds for all of them: no gap, time
//! that goes back only when the clock was set back, and that what was appended comes last.

mod case;
mod order;
mod reader;
mod snapshots;
mod together;

pub use self::case::RoomLogFixture;
pub use self::order::*;
pub use self::snapshots::*;
pub use self::together::*;

/// One test for each case: `room_log_contract!(make)`, where `async fn make() -> RoomLogFixture`.
#[macro_export]
macro_rules! room_log_contract {
    ($make:path) => {
        $crate::contract_cases!($make; room_log {
            log_is_absent_until_it_begins
            one_of_many_beginnings_at_once_wins
            both_instances_read_one_order
            answer_ends_with_what_was_appended
            appends_at_once_are_each_there_once_and_whole
            time_follows_the_clock_also_when_it_is_set_back
            time_stands_still_for_a_clock_that_is_a_little_behind
            a_reader_far_behind_reads_on_before_appending
            a_reader_one_answer_behind_appends
            positions_outside_the_log_begin_again_and_append_nothing
            snapshot_stands_for_what_came_before
            compacting_what_is_not_there_does_nothing
            compacting_beside_appends_leaves_no_gap
            reading_beside_compacting_is_of_one_moment
            logs_are_each_concerts_own
            every_input_comes_back_as_it_was
            big_snapshots_and_records_come_back_whole
        });
    };
}
