//! What every waiting room must do: one place for each user, in order of arrival, never too many (I4), and the same by
//! every instance.
//!
//! A turn's length is the room's own setting; the cases read it from `active_until`. What else they rely on is given by
//! [`EXTENSIONS_MAX`] and [`LANE`].

mod admission;
mod case;
mod joining;
mod promotion;
mod together;
mod turns;

pub use self::admission::*;
pub use self::case::{EXTENSIONS_MAX, LANE, RoomFixture};
pub use self::joining::*;
pub use self::promotion::*;
pub use self::together::*;
pub use self::turns::*;

/// One test for each case: `room_contract!(make)`, where `async fn make() -> RoomFixture`.
#[macro_export]
macro_rules! room_contract {
    ($make:path) => {
        $crate::contract_cases!($make; room {
            room_that_was_not_opened_is_none
            joins_of_one_user_at_once_are_one_place
            joins_of_many_users_at_once_are_distinct_places
            promotion_is_in_order_of_arrival
            no_entry_is_promoted_before_the_sale
            sale_that_starts_soon_opens_within_two_ticks
            never_more_active_than_allowed_nor_faster_than_the_rate
            stock_limits_the_active
            sold_out_stops_promotion_and_a_returned_seat_undoes_it
            pausing_draining_and_resuming
            admission_is_kept_when_the_room_is_opened_again
            admission_is_replaced_only_if_it_is_still_what_was_read
            turn_ends_at_its_instant_without_a_tick
            leaving_and_paying_end_an_entry
            joining_after_the_end_is_a_new_entry_at_the_end
            a_payment_applied_again_does_not_end_a_later_turn
            turn_is_lengthened_as_often_as_may_be
            lanes_have_their_shares
            rooms_are_each_concerts_own
            what_one_instance_was_answered_the_other_touches
            poll_on_the_other_instance_is_a_tick_behind_at_most
            joins_over_two_instances_are_distinct_places
            joins_of_one_user_over_two_instances_are_one_place
            admission_set_on_one_instance_is_obeyed_by_both
            admission_set_by_two_instances_at_once_is_set_by_one
            both_instances_agree_after_a_tumult
            how_many_may_be_active_follows_the_health_of_the_instances
            a_clock_that_is_set_back_delays_no_entry
            a_turn_that_never_had_a_connection_is_not_ended_for_lack_of_one
        });
    };
}
