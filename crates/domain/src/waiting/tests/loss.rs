//! A room that was lost: what it is built from again, who gets what back by which token, and who does not.

use super::*;

mod days;

/// What is built from what the mirror kept at `saved`, when the loss is noticed at `ms`.
fn rebuilt(terms: RoomTerms, saved: &Saved, ms: i64) -> RoomCase {
    let Saved { own, mark, turns, draw } = saved.clone();
    let mut case = RoomCase { room: Room::rebuilt(concert(), terms, own, mark, turns, draw, at(ms)), changes: Vec::new() };
    case.apply(ms, RoomInput::Reserve { to: mark.last_place });
    case
}

/// What the mirror keeps.
#[derive(Clone)]
struct Saved {
    own: Option<(Admission, i64)>,
    mark: RoomMark,
    turns: Vec<ActivePlace>,
    draw: Option<DrawView>,
}

fn saved(case: &RoomCase, ms: i64) -> Saved {
    let room = &case.room;
    Saved {
        own: room.admission_version().map(|version| (room.admission(), version)),
        mark: room.mark(at(ms)),
        turns: room.turns(),
        draw: room.draw().filter(|draw| draw.seed.is_some()),
    }
}

/// Loses everything but the mirror.
fn lose(case: &RoomCase, ms: i64) -> RoomCase {
    rebuilt(case.room.terms().clone(), &saved(case, ms), ms)
}

fn reserved(terms: RoomTerms, people: u128) -> RoomCase {
    let mut case = RoomCase::new(terms);
    case.apply(0, RoomInput::Reserve { to: 1_000 });
    (1..=people).for_each(|n| {
        case.join(n, n, 0);
    });
    case
}

fn join(case: &mut RoomCase, n: u128, ms: i64) -> u64 {
    case.apply(ms, RoomInput::Reserve { to: case.room.last_place() + 100 });
    case.join(n, n, ms).place.arrival
}

#[test]
fn a_lost_room_comes_back_from_the_mirror_and_by_tokens() {
    let mut case = reserved(terms(admission(4, None)), 10);
    case.tick(0, PLENTY);
    let tokens: Vec<_> = (0..=10).map(|n: u128| claim(&case.place(n.max(1), 1))).collect();
    case.finish(2, 1, 1);
    case.leave(3, 1);
    case.leave(8, 1);
    let mut case = lose(&case, 2);
    assert_eq!(case.place(1, 2).active_until, tokens[1].active_until, "to the same instant, without coming back for it");
    assert_eq!(case.status(4, 2).0, QueueStatus::Active);
    for n in [2, 3] {
        assert_eq!(case.restore(tokens[n], 2), None, "what had ended has ended, by the token of the turn");
        assert_eq!(case.restore(PlaceClaim { active_until: None, ..tokens[n] }, 2), None, "and by an older one");
    }
    assert_eq!(join(&mut case, 99, 2), 1_001, "none up to what was reserved is given out again");
    for n in [9, 6, 10, 7] {
        let back = case.restore(tokens[n], 2).unwrap();
        assert_eq!((back.status, back.arrival, back.entry), (QueueStatus::Waiting, n as u64, entry(n as u128)));
        assert_eq!(case.restore(tokens[n], 2), Some(case.place(n as u128, 2)), "twice is once");
    }
    assert_eq!((case.status(99, 2).1, case.status(6, 2).1), (Some(4), Some(0)));
    let counts = case.room.counts(at(2));
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left), (5, 2, 1, 2));
    assert_eq!(case.tick(2, PLENTY), [entry(6), entry(7)], "into the free slots and no more, in order of place");
    let late = case.restore(tokens[8], 2).unwrap();
    assert_eq!((late.status, late.ahead), (QueueStatus::Waiting, Some(0)), "left while waiting: the place can be had again");
}

#[test]
fn an_entry_that_has_not_come_back_yet_is_not_passed_by_for_half_an_hour() {
    let mut case = reserved(terms(admission(1, None)), 6);
    let tokens: Vec<_> = (0..=6).map(|n: u128| claim(&case.place(n.max(1), 0))).collect();
    case.tick(0, PLENTY);
    case.leave(1, 0);
    let mut case = lose(&case, 0);
    case.restore(tokens[6], 0).unwrap();
    assert_eq!(case.tick(0, PLENTY), [entry(6)], "the only one who is there");
    let half_an_hour = 30 * 60_000;
    let mut again = lose(&case, half_an_hour - 1);
    assert!(again.restore(tokens[2], half_an_hour - 1).is_some());
    assert_eq!(again.restore(tokens[1], half_an_hour - 1), None, "who had ended before the first loss has ended");
    case.restore(tokens[3], 1).unwrap();
    let mut again = lose(&case, half_an_hour);
    assert_eq!(again.restore(tokens[3], half_an_hour).unwrap().status, QueueStatus::Waiting, "it was still waiting");
    assert_eq!(again.restore(tokens[2], half_an_hour), None, "passed by");
}

#[test]
fn of_two_stays_of_a_user_the_later_is_kept() {
    let mut case = reserved(terms(admission(1, None)), 3);
    let earlier = claim(&case.place(2, 0));
    case.leave(2, 0);
    let later = claim(&case.join(2, 9, 0).place);
    let mut again = lose(&case, 0);
    assert!(again.restore(earlier, 0).is_some(), "its end is not known yet");
    let back = again.restore(later, 0).unwrap();
    assert_eq!((back.entry, back.arrival), (later.entry, later.place));
    assert_eq!((again.status(2, 0).0, again.room.counts(at(0)).waiting), (QueueStatus::Left, 1));
    let mut again = lose(&case, 0);
    again.restore(later, 0).unwrap();
    assert_eq!(again.restore(earlier, 0), None);
}

#[test]
fn a_user_who_joined_anew_because_the_place_was_lost_gets_it_back() {
    let case = reserved(terms(admission(1, None)), 3);
    let token = claim(&case.place(2, 0));
    let mut case = lose(&case, 0);
    case.apply(0, RoomInput::Reserve { to: 2_000 });
    assert_eq!(case.join(2, 20, 0).place.arrival, 1_001);
    assert_eq!(case.restore(token, 0).unwrap().arrival, 2);
    assert_eq!((case.status(20, 0).0, case.room.entry_of(user(2))), (QueueStatus::Left, Some(entry(2))));
    // But not beside a turn.
    let case = reserved(terms(admission(1, None)), 3);
    let mut case = lose(&case, 0);
    case.apply(0, RoomInput::Reserve { to: 2_000 });
    case.join(2, 20, 0);
    case.tick(0, PLENTY);
    assert_eq!(case.restore(token, 0), None);
    assert_eq!(case.status(20, 0).0, QueueStatus::Active);
}

#[test]
fn what_was_not_lost_is_not_given_back() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    let forged = PlaceClaim { entry: entry(9), user: user(9), lane: Lane(0), place: 1, active_until: None };
    assert_eq!(case.restore(forged, 0), None, "nothing was lost");
    assert_eq!(case.restore(PlaceClaim { place: 0, ..forged }, 0), None);
    let known = case.place(2, 0);
    assert_eq!(case.restore(claim(&known), 0), Some(known));
    assert_eq!(case.room.counts(at(0)).waiting, 2);
}

/// As after a fail-over to a replica that was behind: the latest joins are not there, and are given out once more.
#[test]
fn a_log_without_its_end_gives_no_place_twice() {
    let mut case = RoomCase::with(terms(admission(1, None)), 3);
    let mut behind = RoomCase { room: by_log(&case.room), changes: Vec::new() };
    let lost: Vec<_> = (4..=6).map(|n| claim(&case.join(n, n, 0).place)).collect();
    assert_eq!(behind.join(9, 9, 0).place.arrival, 4, "it cannot know");
    let back = behind.restore(lost[2], 0).unwrap();
    assert_eq!((back.arrival, back.ahead), (6, Some(4)));
    assert_eq!(behind.join(10, 10, 0).place.arrival, 7);
    assert_eq!(behind.restore(lost[0], 0), None, "another entry has it by now");
    assert_eq!(behind.restore(lost[1], 0).unwrap().arrival, 5);
    assert_eq!((behind.status(9, 0).1, behind.status(10, 0).1), (Some(3), Some(6)));
    behind.admit(admission(9, None), 0);
    assert_eq!(behind.tick(0, PLENTY), [1, 2, 3, 9, 5, 6, 10].map(entry), "no entry is left");
    // Nor does a place become free because its entry has ended.
    behind.leave(9, 0);
    assert_eq!(behind.restore(lost[0], 0), None);
}

#[test]
fn turns_that_are_over_take_no_slot_from_those_that_run() {
    let turn = |n: u64, promoted_at, until| ActivePlace {
        entry: entry(n.into()),
        user: user(n.into()),
        place: n,
        promoted_at: at(promoted_at),
        active_until: at(until),
    };
    let mark = RoomMark { last_place: 1_000, promoted_to: 3, ..RoomMark::default() };
    let turns = vec![turn(3, 200, 90_000), turn(2, 100, 80_000), turn(1, 0, 50_000)];
    let of = Saved { own: None, mark, turns, draw: None };
    let mut case = rebuilt(terms(admission(1, None)), &of, 50_000);
    assert_eq!(case.room.place(entry(1), at(50_000)), None, "over");
    assert_eq!(case.status(2, 50_000).0, QueueStatus::Active, "of too many the one that began first");
    assert_eq!(case.status(3, 50_000), (QueueStatus::Waiting, Some(0)), "the other waits in front");
    assert_eq!(case.tick(80_000, PLENTY), [entry(3)]);
    // Of two turns of one user, which a crash can leave behind, the later one.
    let twice = vec![turn(2, 100, 80_000), ActivePlace { user: user(2), ..turn(3, 200, 90_000) }];
    let case = rebuilt(terms(admission(2, None)), &Saved { turns: twice, ..of }, 50_000);
    assert_eq!((case.room.counts(at(50_000)).active, case.room.entry_of(user(2))), (1, Some(entry(3))));
}

#[test]
fn a_running_turn_that_the_mirror_does_not_know_goes_on_if_there_is_room() {
    let mut case = reserved(terms(admission(2, None)), 4);
    let older = saved(&case, 0);
    case.tick(0, PLENTY);
    let tokens: Vec<_> = (1..=4).map(|n| claim(&case.place(n, 0))).collect();
    let mut case = rebuilt(terms(admission(1, None)), &older, 1);
    let back = case.restore(tokens[1], 1).unwrap();
    assert_eq!((back.status, back.active_until), (QueueStatus::Active, tokens[1].active_until));
    assert_eq!(case.room.turns().len(), 1, "the mirror can save it");
    let back = case.restore(tokens[0], 1).unwrap();
    assert_eq!((back.status, back.ahead, back.arrival), (QueueStatus::Waiting, Some(0), 1), "no room: it waits in front");
    let over = PlaceClaim { active_until: Some(at(1)), ..tokens[2] };
    assert_eq!(case.restore(over, 1), None, "a turn that is over has ended");
    assert!(case.restore(tokens[2], 1).is_some());
}

#[test]
fn a_rate_holds_over_a_loss_of_its_window() {
    let mut case = reserved(terms(admission(9, Some((1, 3)))), 3);
    assert_eq!(case.tick(0, PLENTY), [entry(1)]);
    case.leave(1, 0);
    let token = claim(&case.place(2, 0));
    let mut case = lose(&case, 1);
    case.restore(token, 1).unwrap();
    assert_eq!(case.tick(3_000, PLENTY), [], "within three seconds of the first");
    assert_eq!(case.tick(3_001, PLENTY), [entry(2)]);
    // A longer one goes on from the turns that are known.
    let mut case = reserved(terms(admission(9, Some((2, 30)))), 4);
    case.tick(0, PLENTY);
    let token = claim(&case.place(3, 0));
    let mut case = lose(&case, 10_000);
    case.restore(token, 10_000).unwrap();
    assert_eq!(case.tick(29_999, PLENTY), []);
    assert_eq!(case.tick(30_000, PLENTY), [entry(3)]);
}

#[test]
fn what_an_operator_set_holds_over_a_loss() {
    let mut case = reserved(terms(admission(5, None)), 3);
    case.admit(Admission { mode: AdmissionMode::Paused, ..admission(2, None) }, 0);
    let mut case = lose(&case, 0);
    assert_eq!((case.room.admission().mode, case.room.admission_version()), (AdmissionMode::Paused, Some(1)));
    case.apply(0, RoomInput::Admit { admission: admission(5, None), version: 1 });
    assert_eq!(case.room.admission().max_active, 2);
}

const START: i64 = 60_000;

/// Tokens from before the draw, of a thousand people, in an order that is not theirs.
fn pre_sale_tokens(case: &RoomCase, people: u128) -> Vec<PlaceClaim> {
    (1..=people).map(|n| claim(&case.place(n * 7 % (people + 1), 0))).collect()
}

#[test]
fn lost_before_the_start_an_entry_that_comes_back_is_drawn_with_the_others() {
    let case = reserved(drawn(admission(1, None), START), 10);
    let tokens = pre_sale_tokens(&case, 10);
    let mut again = lose(&case, 5_000);
    tokens.iter().for_each(|token| assert_eq!(again.restore(*token, 5_000).unwrap().status, QueueStatus::PreSale));
    again.ticked(START, PLENTY);
    let keys = again.room.draw().unwrap().keys;
    let mut case = case;
    case.ticked(START, PLENTY);
    assert_eq!(keys, case.room.draw().unwrap().keys, "the list is the same as if nothing had been lost");
    assert_eq!(again.room.draw().unwrap().base, 1_000, "behind all places that may have been given out");
}

#[test]
fn lost_around_the_start_the_list_stays_open_until_every_entry_can_have_come_back() {
    for lost_at in [START - 1, START + 1_000] {
        let mut case = reserved(drawn(admission(5, None), START), 10);
        let tokens = pre_sale_tokens(&case, 10);
        if lost_at > START {
            case.ticked(START, PLENTY);
        }
        let mut case = lose(&case, lost_at);
        assert_eq!(case.tick(lost_at, PLENTY), []);
        for (after_s, token) in (0..).zip(&tokens) {
            let back = case.restore(*token, lost_at + after_s * 1_000).unwrap();
            assert_eq!((back.status, back.arrival), (QueueStatus::PreSale, 0));
        }
        assert!(!case.room.awaits_reveal() && !case.room.is_due(at(lost_at + 14_999), PLENTY));
        case.ticked(lost_at + 15_000, PLENTY);
        assert_eq!(case.room.draw().unwrap().keys.unwrap().len(), 10);
        case.reveal(None, lost_at + 15_000);
        assert_eq!(case.tick(lost_at + 15_000, PLENTY).len(), 5);
    }
}

#[test]
fn a_room_that_was_never_lost_opens_at_the_start_of_its_sale() {
    let new = Saved { own: None, mark: RoomMark::default(), turns: Vec::new(), draw: None };
    // Begun before the start, or, by an import or a first contact, after it.
    for begun_at in [START - 3_000, START - 1, START + 500] {
        let mut case = rebuilt(drawn(admission(5, None), START), &new, begun_at);
        case.apply(begun_at, RoomInput::Reserve { to: 1_000 });
        let early = begun_at < START;
        assert_eq!(case.join(1, 1, begun_at).place.status, if early { QueueStatus::PreSale } else { QueueStatus::Waiting });
        let opens_at = begun_at.max(START);
        assert!(case.room.is_due(at(opens_at), PLENTY), "a tick is due at the start");
        case.ticked(opens_at, PLENTY);
        case.reveal(None, opens_at);
        assert!(case.room.summary(at(opens_at)).open, "begun at {begun_at}");
        case.tick(opens_at, PLENTY);
        assert_eq!(case.status(1, opens_at).0, QueueStatus::Active, "by the second tick, begun at {begun_at}");
    }
}

#[test]
fn a_token_from_before_the_draw_is_worth_the_place_that_was_drawn() {
    const PEOPLE: u128 = 20_000;
    let mut case = RoomCase::new(drawn(admission(3, None), START));
    case.apply(0, RoomInput::Reserve { to: PEOPLE as u64 });
    (1..=PEOPLE).for_each(|n| {
        case.join(n, n, 0);
    });
    let tokens = pre_sale_tokens(&case, PEOPLE);
    case.ticked(START, PLENTY);
    case.reveal(Some("a headline"), START);
    let promoted = case.tick(START, PLENTY);
    case.apply(START, RoomInput::Leave { entry: promoted[0] });
    let mut again = lose(&case, START);
    for token in &tokens {
        let (was, back) = (case.room.place(token.entry, at(START)).unwrap(), again.restore(*token, START));
        match was.status {
            QueueStatus::Left => assert_eq!(back, None),
            _ => assert_eq!(back.map(|back| (back.status, back.arrival)), Some((was.status, was.arrival))),
        }
    }
    assert_eq!(again.room.counts(at(START)).waiting, PEOPLE as u64 - 3);
    assert_eq!(again.room.draw(), case.room.draw());
    let never_there = PlaceClaim { entry: entry(99_999), user: user(99_999), ..tokens[0] };
    assert_eq!(again.restore(never_there, START), None);
}

/// Lost before the draw, the list began behind what was reserved; lost once more after it, every entry still finds it there.
#[test]
fn a_draw_is_found_again_behind_places_that_were_lost_before_it() {
    let case = reserved(drawn(admission(1, None), START), 10);
    let tokens = pre_sale_tokens(&case, 10);
    let mut case = lose(&case, 1);
    tokens.iter().for_each(|token| {
        case.restore(*token, 1);
    });
    case.ticked(START, PLENTY);
    case.reveal(None, START);
    let mut again = lose(&case, START);
    for token in tokens {
        let was = case.room.place(token.entry, at(START)).unwrap().arrival;
        assert_eq!(again.restore(token, START).map(|back| back.arrival), Some(was));
        assert!(was > 1_000);
    }
}

#[test]
fn what_a_surviving_replica_knows_is_given_to_one_that_knows_less() {
    let mut case = RoomCase::with(terms(admission(1, None)), 3);
    case.apply(0, RoomInput::Open(drawn(admission(1, None), START)));
    let mut behind = RoomCase { room: by_log(&case.room), changes: Vec::new() };
    case.join(4, 4, 0);
    let claims = case.room.claims_beyond(behind.room.last_place());
    assert_eq!(claims.iter().map(|claim| (claim.entry, claim.place)).collect::<Vec<_>>(), [(entry(4), 0)], "who has no place yet, too");
    claims.into_iter().for_each(|claim| assert!(behind.restore(claim, 0).is_some()));
    assert_eq!(behind.room.claims_beyond(0), case.room.claims_beyond(0));
}
