//! Every command on its own, seen through the queries.

use boxoffice_domain::{EntryKind, Outcome, PaymentId, PointsKind, Rejection, Reservation, ReservationStatus, SeatState};
use chrono::TimeDelta;
use uuid::Uuid;

use crate::contract::Fixture;
use crate::contract::build::{self, HALL, PRICE_R, PRICE_S, user};
use crate::contract::shop::{Shop, entry, paid, reservation};

pub async fn charge_and_use_write_entries(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    assert_eq!((shop.balance(ann).await, shop.entries(ann).await.len()), (0, 0), "one who never charged has an empty wallet");
    let charged = entry(&shop.one(build::charge(ann, "c", 5_000)).await);
    assert_eq!((charged.user, charged.seq, charged.kind, charged.amount, charged.balance), (ann, 1, EntryKind::Charge, 5_000, 5_000));
    let used = entry(&shop.one(build::spend(ann, "u", 1_200)).await);
    assert_eq!((used.seq, used.kind, used.amount, used.balance), (2, EntryKind::Use, -1_200, 3_800));
    assert_eq!(used.memo.as_deref(), Some("poster"));
    let by_operator = entry(&shop.one(build::charge_by(user(), "o", ann, 100)).await);
    assert_eq!((by_operator.user, by_operator.balance), (ann, 3_900));
    assert_eq!(shop.refused(build::spend(ann, "much", 3_901)).await, Rejection::InsufficientBalance);
    assert_eq!(shop.balance(ann).await, 3_900);
    assert_eq!(shop.entries(ann).await, [by_operator, used, charged], "newest first, as answered");
    assert_eq!((shop.events_of("wallet.charged").await, shop.events_of("wallet.used").await), (2, 1));
    shop.close().await;
}

pub async fn hold_extend_and_release_show_in_queries(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let before = shop.now().await;
    let reply = shop.one(build::hold(ann, "h", shop.date, &[25, 7])).await;
    let held = reservation(&reply);
    assert!(held.created_at >= before && held.created_at == reply.decided_at);
    assert_eq!(held.expires_at - held.created_at, TimeDelta::seconds(i64::from(shop.policy.hold_ttl_s)));
    assert_eq!((held.user, held.status, held.extensions, held.payment), (ann, ReservationStatus::Held, 0, None));
    assert_eq!((held.concert.id, held.date.id, &*held.concert.venue), (shop.concert, shop.date, "Olympic Hall"));
    let seats: Vec<_> = held.seats.iter().map(|seat| (seat.number, &*seat.grade, seat.price, seat.section.as_deref())).collect();
    assert_eq!(seats, [(7, "R", PRICE_R, Some("A")), (25, "S", PRICE_S, None)]);
    assert_eq!(shop.reservation(ann, held.id).await, held, "the record is the answer");
    assert_eq!(shop.seat(7).await.seat.state, SeatState::Held { reservation: held.id, until: held.expires_at });
    assert_eq!(shop.tally().await, (u64::from(HALL) - 2, 2, 0));
    let queries = &shop.fixture.stores.queries;
    assert_eq!(queries.live_holds(ann, shop.concert).await.expect("live holds"), [held.id]);

    shop.advance(TimeDelta::seconds(100));
    let extended = match shop.done(build::extend(ann, "e", held.id)).await {
        Outcome::Extended { reservation, extensions_left } => {
            assert_eq!(extensions_left, shop.policy.extensions_max - 1);
            reservation
        }
        other => panic!("an extension was expected, and not {other:?}"),
    };
    assert!(extended.expires_at >= held.expires_at + TimeDelta::seconds(100));
    assert_eq!((extended.extensions, &extended.seats), (1, &held.seats));
    assert_eq!(shop.reservation(ann, held.id).await, extended);
    assert_eq!(shop.seat(25).await.seat.state, SeatState::Held { reservation: held.id, until: extended.expires_at });
    assert_eq!(shop.refused(build::extend(ann, "e2", held.id)).await, Rejection::ExtensionLimitExceeded);

    let released = reservation(&shop.one(build::release(ann, held.id)).await);
    assert_eq!(released.status, ReservationStatus::Released);
    assert_eq!(shop.reservation(ann, held.id).await, released);
    assert_eq!(shop.tally().await, (u64::from(HALL), 0, 0));
    assert!(queries.live_holds(ann, shop.concert).await.expect("live holds").is_empty());
    let again = reservation(&shop.one(build::release(ann, held.id)).await);
    assert_eq!(again, released, "releasing again is no error");
    assert_eq!(shop.refused(build::pay(ann, "p", held.id, 0)).await, Rejection::HoldReleased);
    assert_eq!(shop.refused(build::extend(ann, "e3", held.id)).await, Rejection::HoldReleased);
    assert_eq!((shop.events_of("reservation.held").await, shop.events_of("reservation.released").await), (3, 3), "a seat each and one");
    shop.close().await;
}

pub async fn pay_sells_and_refund_gives_back(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let queries = &shop.fixture.stores.queries;
    let ann = user();
    let held = shop.hold(ann, &[1, 30]).await;
    assert_eq!(shop.refused(build::pay(ann, "poor", held.id, 0)).await, Rejection::InsufficientBalance);
    shop.charge(ann, 300_000).await;
    let (payment, confirmed) = paid(&shop.one(build::pay(ann, "p", held.id, 0)).await);
    let total = PRICE_R + PRICE_S;
    assert_eq!((payment.user, payment.reservation, payment.amount), (ann, held.id, total));
    assert_eq!((payment.points_spent, payment.points_granted, &payment.refund), (0, total * 5 / 100, &None));
    assert_eq!((confirmed.status, confirmed.payment), (ReservationStatus::Confirmed, Some(payment.id)));
    assert_eq!(shop.reservation(ann, held.id).await, confirmed);
    let row = queries.payment(ann, payment.id).await.expect("a payment").expect("the user's payment");
    assert_eq!((&row.payment, &row.reservation), (&payment, &confirmed));
    let next = PaymentId(Uuid::from_u128(payment.id.0.as_u128() + 1));
    for (from, until, limit, is_found) in
        [(payment.id, next, 9, true), (next, PaymentId(Uuid::max()), 9, false), (PaymentId(Uuid::nil()), payment.id, 9, false)]
    {
        let found = queries.payments_between(from, until, limit).await.expect("payments");
        assert_eq!(found.first(), is_found.then_some(&row));
    }
    assert_eq!(shop.seat(1).await.seat.state, SeatState::Sold { reservation: held.id });
    assert_eq!(shop.tally().await, (u64::from(HALL) - 2, 0, 2));
    assert_eq!((shop.balance(ann).await, shop.points(ann).await), (300_000 - total, payment.points_granted));
    let line = &shop.entries(ann).await[0];
    assert_eq!((line.kind, line.amount), (EntryKind::Payment, -total));
    assert_eq!((line.reservation, line.payment), (Some(held.id), Some(payment.id)));
    assert_eq!(queries.revenue(shop.concert).await.expect("revenue"), total);
    assert_eq!(shop.refused(build::pay(ann, "p2", held.id, 0)).await, Rejection::AlreadyPaid);
    assert_eq!(shop.refused(build::release(ann, held.id)).await, Rejection::AlreadyPaid);
    shop.advance_past_holds();
    assert_eq!(shop.tally().await, (u64::from(HALL) - 2, 0, 2), "what is sold does not expire");

    let (refunded, cancelled) = paid(&shop.one(build::refund(ann, "r", payment.id)).await);
    let refund = refunded.refund.clone().expect("a refund");
    assert_eq!((refund.amount, refund.points_restored, refund.points_taken_back, refund.shortfall), (total, 0, total * 5 / 100, 0));
    assert_eq!(cancelled.status, ReservationStatus::Cancelled);
    assert_eq!(shop.reservation(ann, held.id).await, cancelled);
    assert_eq!(queries.payment(ann, payment.id).await.expect("a payment").expect("the user's").payment, refunded);
    assert_eq!((shop.balance(ann).await, shop.points(ann).await), (300_000, 0));
    assert_eq!(shop.tally().await, (u64::from(HALL), 0, 0));
    assert_eq!(queries.revenue(shop.concert).await.expect("revenue"), 0);
    assert_eq!(shop.refused(build::refund(ann, "r2", payment.id)).await, Rejection::AlreadyRefunded);
    assert_eq!(shop.refused(build::pay(ann, "p3", held.id, 0)).await, Rejection::AlreadyRefunded);
    assert_eq!((shop.events_of("payment.paid").await, shop.events_of("payment.refunded").await), (1, 1));
    shop.buy(user(), &[1, 30]).await;
    shop.close().await;
}

pub async fn a_payment_says_whether_another_hold_lives_on(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    shop.charge(ann, 4 * PRICE_R).await;
    shop.hold(ben, &[9]).await;
    let last = async |key, held: &Reservation| match shop.done(build::pay(ann, key, held.id, 0)).await {
        Outcome::Paid { last_hold, .. } => last_hold,
        other => panic!("a payment was expected, and not {other:?}"),
    };
    let held = [shop.hold(ann, &[1]).await, shop.hold(ann, &[2]).await, shop.hold(ann, &[3]).await];
    assert!(!last("1", &held[0]).await, "two others live");
    shop.one(build::release(ann, held[1].id)).await;
    assert!(last("3", &held[2]).await, "what was paid and what was given up is no hold");

    let over = shop.hold(ann, &[4]).await;
    shop.advance_past_holds();
    let held = shop.hold(ann, &[5]).await;
    assert!(last("5", &held).await, "a hold that is over counts no more, swept or not");
    assert_eq!(shop.reservation(ann, over.id).await.status, ReservationStatus::Held);
    shop.close().await;
}

pub async fn points_are_spent_and_restored(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let (first, _) = shop.buy(ann, &[1]).await;
    let owned = first.points_granted;
    let held = shop.hold(ann, &[21]).await;
    assert_eq!(shop.refused(build::pay(ann, "many", held.id, owned + 1)).await, Rejection::InsufficientPoints);
    let too_many = shop.refused(build::pay(ann, "more", held.id, PRICE_S + 1)).await;
    assert!(matches!(too_many, Rejection::AmountOutOfRange { ref field, .. } if field == "points"), "{too_many:?}");
    shop.charge(ann, PRICE_S).await;
    let (payment, _) = paid(&shop.one(build::pay(ann, "p", held.id, owned)).await);
    assert_eq!((payment.amount, payment.points_spent), (PRICE_S - owned, owned));
    let granted = (PRICE_S - owned) * 5 / 100;
    assert_eq!((payment.points_granted, shop.points(ann).await, shop.balance(ann).await), (granted, granted, owned));
    paid(&shop.one(build::refund(ann, "r", payment.id)).await);
    assert_eq!((shop.points(ann).await, shop.balance(ann).await), (owned, PRICE_S));
    let journal = shop.fixture.stores.queries.points_entries(ann, None, 50).await.expect("points").items;
    let kinds: Vec<_> = journal.iter().map(|line| (line.seq, line.kind, line.points, line.balance)).collect();
    let expected = [
        (5, PointsKind::TakeBack, -granted, owned),
        (4, PointsKind::Restore, owned, owned + granted),
        (3, PointsKind::Grant, granted, granted),
        (2, PointsKind::Spend, -owned, 0),
        (1, PointsKind::Grant, owned, owned),
    ];
    assert_eq!(kinds, expected);
    assert!(journal[..4].iter().all(|line| line.payment == payment.id && line.user == ann));
    shop.close().await;
}

pub async fn refund_takes_back_points_that_are_spent_from_the_money(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let (first, _) = shop.buy(ann, &[1]).await;
    let owned = first.points_granted;
    let held = shop.hold(ann, &[2]).await;
    shop.charge(ann, PRICE_R).await;
    let (second, _) = paid(&shop.one(build::pay(ann, "p", held.id, owned)).await);
    let (refunded, _) = paid(&shop.one(build::refund(ann, "r", first.id)).await);
    let refund = refunded.refund.expect("a refund");
    let (back, short) = (second.points_granted, owned - second.points_granted);
    assert_eq!((refund.points_taken_back, refund.shortfall, refund.amount), (back, short, first.amount - short));
    assert_eq!(shop.points(ann).await, 0);
    shop.close().await;
}

pub async fn records_stay_as_they_were_sold(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let stores = &shop.fixture.stores;
    let ann = user();
    let (payment, bought) = shop.buy(ann, &[3]).await;
    let row = stores.queries.catalog().await.expect("a catalogue").remove(0);
    let mut plan = build::demo_plan(row.dates[0].booking_opens_at + TimeDelta::hours(1));
    plan.name = "Another Name".to_owned();
    plan.venue = "Another Hall".to_owned();
    plan.dates[0].seats = vec![build::seats(4, 20, "R", PRICE_R + 5, None)];
    stores.catalog.import(vec![plan], build::admission()).await.expect("an import");
    assert_eq!(shop.reservation(ann, bought.id).await, bought);
    let row = stores.queries.payment(ann, payment.id).await.expect("a payment").expect("the user's");
    assert_eq!((row.payment, row.reservation), (payment, bought));
    assert_eq!(&*shop.hold(ann, &[5]).await.concert.name, "Another Name");
    shop.close().await;
}

pub async fn best_takes_the_first_choice_that_is_free(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    shop.hold(user(), &[2]).await;
    let ann = user();
    let choices = vec![vec![1, 2], vec![5, 6], vec![8, 9]];
    let held = reservation(&shop.one(build::hold_best(ann, "b", shop.date, choices.clone(), false)).await);
    assert_eq!(held.seats.iter().map(|seat| seat.number).collect::<Vec<_>>(), [5, 6]);
    shop.hold(user(), &[9]).await;
    let ben = user();
    let request = build::hold_best(ben, "b", shop.date, choices.clone(), false);
    let reply = shop.one(request.clone()).await;
    assert_eq!(reply.decision, boxoffice_domain::Decision::Retry);
    let (key, _) = request.idempotency().expect("a key");
    assert!(shop.fixture.stores.ledger.reply(key).await.expect("no reply").is_none(), "choosing again is not an answer");
    let last = build::hold_best(ben, "b", shop.date, choices, true);
    assert_eq!(shop.refused(last).await, Rejection::SeatUnavailable { seats: Vec::new() });
    assert!(shop.fixture.stores.ledger.reply(key).await.expect("a reply").is_some());
    shop.close().await;
}

pub async fn seat_limit_counts_live_and_sold_seats(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let limit = shop.policy.max_seats_per_user;
    let exceeded = Rejection::SeatLimitExceeded { limit };
    let ann = user();
    assert_eq!(shop.refused(build::hold(ann, "five", shop.date, &[1, 2, 3, 4, 5])).await, exceeded);
    let (payment, _) = shop.buy(ann, &[1, 2]).await;
    let held = shop.hold(ann, &[3]).await;
    assert_eq!(shop.refused(build::hold(ann, "two", shop.date, &[4, 5])).await, exceeded);
    shop.hold(ann, &[4]).await;
    assert_eq!(shop.refused(build::hold(ann, "one", shop.date, &[5])).await, exceeded);
    reservation(&shop.one(build::hold(ann, "other date", shop.other_date, &[1, 2, 3, 4])).await);
    shop.one(build::release(ann, held.id)).await;
    shop.hold(ann, &[5]).await;
    shop.one(build::refund(ann, "r", payment.id)).await;
    shop.hold(ann, &[6, 7]).await;
    assert_eq!(shop.refused(build::hold(ann, "full", shop.date, &[8])).await, exceeded);
    shop.close().await;
}

pub async fn what_is_not_there_is_not_found(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let missing = |what: &str| Rejection::NotFound { what: what.to_owned() };
    assert_eq!(shop.refused(build::hold(ann, "d", build::fresh(), &[1])).await, missing("date"));
    assert_eq!(shop.refused(build::hold(ann, "s", shop.date, &[1, HALL + 1])).await, missing("seat"));
    assert_eq!(shop.refused(build::pay(ann, "p", build::fresh(), 0)).await, missing("reservation"));
    assert_eq!(shop.refused(build::extend(ann, "e", build::fresh())).await, missing("reservation"));
    assert_eq!(shop.refused(build::release(ann, build::fresh())).await, missing("reservation"));
    assert_eq!(shop.refused(build::expire(build::fresh())).await, missing("reservation"));
    assert_eq!(shop.refused(build::refund(ann, "r", build::fresh())).await, missing("payment"));
    // Another user's things are not there either.
    let held = shop.hold(ben, &[9]).await;
    let (payment, _) = shop.buy(ben, &[10]).await;
    shop.charge(ann, PRICE_R).await;
    assert_eq!(shop.refused(build::pay(ann, "p2", held.id, 0)).await, missing("reservation"));
    assert_eq!(shop.refused(build::extend(ann, "e2", held.id)).await, missing("reservation"));
    assert_eq!(shop.refused(build::release(ann, held.id)).await, missing("reservation"));
    assert_eq!(shop.refused(build::refund(ann, "r2", payment.id)).await, missing("payment"));
    assert_eq!(shop.refused(build::expire(held.id)).await, missing("reservation"), "a live hold is not expired by a sweep");
    assert_eq!((shop.balance(ann).await, shop.tally().await), (PRICE_R, (u64::from(HALL) - 2, 1, 1)));
    shop.close().await;
}

pub async fn unusable_amounts_and_dates_are_refused(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    for (key, request) in [("zero", 0), ("negative", -5), ("large", shop.policy.amount_max + 1)] {
        for refused in
            [shop.refused(build::charge(ann, key, request)).await, shop.refused(build::spend(ann, &format!("u{key}"), request)).await]
        {
            assert!(matches!(refused, Rejection::AmountOutOfRange { ref field, .. } if field == "amount"), "{key}: {refused:?}");
        }
    }
    for step in 0..shop.policy.balance_max / shop.policy.amount_max {
        shop.one(build::charge(ann, &format!("fill-{step}"), shop.policy.amount_max)).await;
    }
    let over = shop.refused(build::charge(ann, "over", 1)).await;
    assert!(matches!(over, Rejection::AmountOutOfRange { .. }), "{over:?}");
    assert_eq!(shop.balance(ann).await, shop.policy.balance_max);

    let now = shop.now().await;
    let (payment, _) = shop.buy(user(), &[1]).await;
    let mut plan = build::demo_plan(now);
    plan.key = "not-yet".to_owned();
    plan.dates[0].booking_opens_at = now + TimeDelta::hours(1);
    let later = shop.fixture.stores.catalog.import(vec![plan], build::admission()).await.expect("an import")[0].dates[0].id;
    assert_eq!(shop.refused(build::hold(ann, "early", later, &[1])).await, Rejection::BookingClosed);
    shop.advance(TimeDelta::hours(2));
    reservation(&shop.one(build::hold(ann, "open", later, &[1])).await);
    shop.advance(TimeDelta::days(29));
    assert_eq!(shop.refused(build::refund(payment.user, "late", payment.id)).await, Rejection::RefundClosed);
    shop.advance(TimeDelta::days(1));
    assert_eq!(shop.refused(build::hold(ann, "late", later, &[2])).await, Rejection::BookingClosed);
    shop.close().await;
}
