//! What every store must do as ledger, queries, catalogue, upkeep, outbox, audit and secrets.
//!
//! Time is the store's, moved by [`Fixture::advance`](super::Fixture); the policy is [`build::policy`](super::build::policy).

pub mod batches;
pub mod booking;
pub mod catalog;
pub mod changes;
pub mod contention;
pub mod expiry;
pub mod lists;
pub mod replies;

/// One test for each case: `ledger_contract!(make_fixture)`, where `async fn make_fixture() -> Fixture`.
#[macro_export]
macro_rules! ledger_contract {
    ($make:path) => {
        $crate::contract_cases!($make; catalog {
            import_again_changes_nothing
            import_updates_what_may_change
            import_refuses_to_change_held_and_sold_seats
            import_that_fails_writes_nothing
            catalog_is_in_order_and_complete
        });
        $crate::contract_cases!($make; booking {
            charge_and_use_write_entries
            hold_extend_and_release_show_in_queries
            pay_sells_and_refund_gives_back
            a_payment_says_whether_another_hold_lives_on
            points_are_spent_and_restored
            refund_takes_back_points_that_are_spent_from_the_money
            records_stay_as_they_were_sold
            best_takes_the_first_choice_that_is_free
            seat_limit_counts_live_and_sold_seats
            what_is_not_there_is_not_found
            unusable_amounts_and_dates_are_refused
        });
        $crate::contract_cases!($make; batches {
            later_commands_see_earlier_effects
            refusal_in_the_middle_harms_no_neighbour
            duplicates_in_a_batch_get_one_effect
            empty_batch_is_answered_with_nothing
            seat_versions_grow_and_agree
            large_batch_is_one_commit
        });
        $crate::contract_cases!($make; replies {
            replies_are_stored_and_replayed
            refusals_are_stored_and_replayed
            key_with_another_fingerprint_is_refused_and_not_stored
            replies_without_a_key_are_not_stored
            keys_are_each_users_own
            expired_key_runs_anew_before_it_is_pruned
            pruning_is_bounded_and_takes_only_expired_replies
        });
        $crate::contract_cases!($make; expiry {
            hold_that_is_over_cannot_be_paid_extended_or_released
            expired_seat_goes_to_the_next_user_at_once
            sweep_frees_only_seats_that_still_name_the_hold
            due_holds_are_bounded_and_oldest_first
            expired_hold_leaves_the_limit
        });
        $crate::contract_cases!($make; contention {
            same_command_in_two_batches_has_one_effect_under_row_locks
            same_command_in_two_batches_has_one_effect_under_versions
            one_seat_has_one_winner_under_row_locks
            one_seat_has_one_winner_under_versions
            one_wallet_adds_up_under_row_locks
            one_wallet_adds_up_under_versions
            two_payments_of_one_reservation_are_one
            holds_of_one_user_at_once_stay_within_the_limit
            payment_release_and_leaving_at_once_have_one_winner
            refunds_at_once_are_one
            sweeps_at_once_write_an_expiry_once
            rows_that_no_transaction_keeps_are_not_held
        });
        $crate::contract_cases!($make; changes {
            changed_seats_are_returned_since_a_mark
            changed_seats_are_those_of_the_dates_asked_for
            imported_seats_are_changed_seats
            reader_of_changes_misses_no_commit
        });
        $crate::contract_cases!($make; lists {
            entries_are_paged
            points_entries_are_paged
            reservations_and_payments_are_paged
            other_users_things_are_not_there
            outbox_keeps_each_seats_order_and_deletes_by_id
            outbox_rows_are_set_aside_until_they_are_taken
            outbox_counts_what_waits_and_gives_a_lone_relay_every_shard
            secrets_are_made_once
        });
    };
}
