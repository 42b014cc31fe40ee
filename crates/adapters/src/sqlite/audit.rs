//! The audit: the design's invariants as queries, all over one snapshot, beside whatever else runs.
//!
//! Each check selects one line of text for each row that breaks its invariant, at most [`BREACHES_MAX`]. They ask
//! what the constraints of the schema cannot say: sums, and what rows of different tables claim of each other.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{At, row, rows, statements};
use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_ports::{Audit, AuditReport, BREACHES_MAX, Breach, StoreError};
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, SqliteConnection};

statements! {
    SeatsNameTheirReservation -> Text =
        "SELECT 'seat ' || s.number || ' of date ' || lower(hex(s.date_id)) || ' is ' || s.state || ' by reservation '
                || lower(hex(s.reservation_id)) || ', which is ' || coalesce(r.status, 'missing')
         FROM seats s LEFT JOIN reservations r ON r.id = s.reservation_id
         WHERE s.state <> 'available'
           AND (r.id IS NULL OR r.date_id <> s.date_id OR r.status <> iif(s.state = 'sold', 'confirmed', 'held')
                OR (s.state = 'held' AND s.held_until <> r.expires_at)
                OR s.number NOT IN (SELECT value ->> 'number' FROM json_each(r.snapshot, '$.seats')))
         LIMIT ?";
    // CROSS JOIN: from the snapshot to its seats, each by its key; SQLite would rather walk all seats of the date.
    ReservationsAreNamedByTheirSeats -> Text =
        "SELECT status || ' reservation ' || lower(hex(id)) || ' of ' || seat_count || ' seats is named by ' || named FROM (
             SELECT r.id, r.status, r.seat_count,
                    (SELECT count(*) FROM json_each(r.snapshot, '$.seats') j
                     CROSS JOIN seats s ON s.date_id = r.date_id AND s.number = j.value ->> 'number'
                     WHERE s.reservation_id = r.id AND s.state = iif(r.status = 'confirmed', 'sold', 'held')) AS named
             FROM reservations r WHERE r.status = 'confirmed' OR (r.status = 'held' AND r.expires_at > ?))
         WHERE named <> seat_count LIMIT ?";
    ConfirmedReservationsArePaid -> Text =
        "SELECT r.status || ' reservation ' || lower(hex(r.id)) || ' has ' ||
                iif(p.id IS NULL, 'no payment', 'payment ' || lower(hex(p.id)) || iif(p.refunded_at IS NULL, ', paid', ', refunded'))
         FROM reservations r LEFT JOIN payments p ON p.reservation_id = r.id
         WHERE (r.status IN ('confirmed', 'cancelled')
                AND (p.id IS NULL OR p.id <> r.payment_id OR (p.refunded_at IS NULL) <> (r.status = 'confirmed')))
            OR (r.status NOT IN ('confirmed', 'cancelled') AND p.id IS NOT NULL)
         LIMIT ?";
    PaymentsHaveTheirReservation -> Text =
        "SELECT 'payment ' || lower(hex(p.id)) || ' names reservation ' || lower(hex(p.reservation_id)) ||
                iif(r.id IS NULL, ', which is missing', ' of another user or concert')
         FROM payments p LEFT JOIN reservations r ON r.id = p.reservation_id
         WHERE r.id IS NULL OR r.user_id <> p.user_id OR r.concert_id <> p.concert_id LIMIT ?";
    BalancesAreSums -> Text =
        "SELECT 'account ' || lower(hex(a.user_id)) || ' holds ' || a.balance || ' after ' || a.entries || ' entries, which sum to '
                || coalesce(e.total, 0) || ' in ' || coalesce(e.lines, 0)
         FROM accounts a LEFT JOIN (SELECT user_id, sum(amount) AS total, count(*) AS lines, max(seq) AS last FROM entries GROUP BY user_id) e
           ON e.user_id = a.user_id
         WHERE a.balance <> coalesce(e.total, 0) OR a.entries <> coalesce(e.lines, 0) OR a.entries <> coalesce(e.last, 0) LIMIT ?";
    EntriesFollowEachOther -> Text =
        "SELECT 'entry ' || seq || ' of user ' || lower(hex(user_id)) || ' begins at ' || before || ', the one before it left ' || previous
         FROM (SELECT user_id, seq, before, lag(balance, 1, 0) OVER (PARTITION BY user_id ORDER BY seq) AS previous FROM entries)
         WHERE before <> previous LIMIT ?";
    EntriesHaveAnAccount -> Text =
        "SELECT 'entry ' || seq || ' of user ' || lower(hex(user_id)) || ' has no account' FROM entries
         WHERE user_id NOT IN (SELECT user_id FROM accounts) LIMIT ?";
    PaymentsMoveMoneyOnce -> Text =
        "WITH moved AS MATERIALIZED (
             SELECT payment_id, user_id, sum(iif(kind = 'payment', amount, 0)) AS paid, sum(iif(kind = 'refund', amount, 0)) AS refunded,
                    sum(kind = 'payment') AS payments, sum(kind = 'refund') AS refunds, sum(kind IN ('charge', 'use')) AS others
             FROM entries WHERE payment_id IS NOT NULL GROUP BY payment_id, user_id)
         SELECT 'payment ' || lower(hex(p.id)) || ' of ' || p.amount || ', refunded ' || coalesce(p.refund_amount, 0) ||
                ', is entered as ' || coalesce(m.paid, 0) || ' and ' || coalesce(m.refunded, 0)
         FROM payments p LEFT JOIN moved m ON m.payment_id = p.id AND m.user_id = p.user_id
         WHERE coalesce(m.paid, 0) <> -p.amount OR coalesce(m.refunded, 0) <> coalesce(p.refund_amount, 0)
            OR coalesce(m.payments, 0) > 1 OR coalesce(m.refunds, 0) > 1 OR coalesce(m.others, 0) > 0
         UNION ALL
         SELECT 'entries of user ' || lower(hex(m.user_id)) || ' name payment ' || lower(hex(m.payment_id)) || ', which is not theirs'
         FROM moved m WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = m.payment_id AND p.user_id = m.user_id)
         LIMIT ?";
    EntryIdsAreUnique -> Text =
        "SELECT count(*) || ' entries share the id ' || lower(hex(id)) FROM entries GROUP BY id HAVING count(*) > 1 LIMIT ?";
    RepliesHaveTheirEffect -> Text =
        "WITH claims AS (
             SELECT user_id, command_id, body ->> '$.Ok.outcome' AS outcome,
                    unhex(body ->> '$.Ok.entry.id', '-') AS entry, unhex(body ->> '$.Ok.entry.user', '-') AS owner,
                    body ->> '$.Ok.entry.seq' AS seq, body ->> '$.Ok.entry.amount' AS amount,
                    unhex(body ->> '$.Ok.reservation.id', '-') AS reservation, unhex(body ->> '$.Ok.payment.id', '-') AS payment
             FROM replies WHERE body ->> '$.Ok' IS NOT NULL)
         SELECT 'the reply of command ' || lower(hex(command_id)) || ' of user ' || lower(hex(user_id)) || ' says ' || outcome
                || ', which did not happen'
         FROM claims c
         WHERE CASE
             WHEN outcome = 'entered' THEN NOT EXISTS
                 (SELECT 1 FROM entries e WHERE e.user_id = owner AND e.seq = c.seq AND e.id = entry AND e.amount = c.amount)
             WHEN outcome IN ('paid', 'refunded') THEN NOT EXISTS
                 (SELECT 1 FROM payments p WHERE p.id = payment AND p.reservation_id = reservation
                  AND (outcome = 'paid' OR p.refunded_at IS NOT NULL))
             ELSE NOT EXISTS (SELECT 1 FROM reservations r WHERE r.id = reservation) END
         LIMIT ?";
    EffectsAreClaimedOnce -> Text =
        "SELECT count(*) || ' replies claim ' || outcome || ' ' || id FROM (
             SELECT body ->> '$.Ok.outcome' AS outcome,
                    coalesce(body ->> '$.Ok.entry.id', body ->> '$.Ok.payment.id', body ->> '$.Ok.reservation.id') AS id
             FROM replies WHERE body ->> '$.Ok.outcome' IN ('entered', 'held', 'paid', 'refunded'))
         GROUP BY outcome, id HAVING count(*) > 1 LIMIT ?";
    DatesCountTheirSeats -> Text =
        "WITH counted AS MATERIALIZED (
             SELECT date_id, count(*) AS total, sum(state = 'available' OR (state = 'held' AND held_until <= ?)) AS available,
                    sum(state = 'held' AND held_until > ?) AS held, sum(state = 'sold') AS sold
             FROM seats GROUP BY date_id),
         claimed AS MATERIALIZED (
             SELECT date_id, sum(iif(status = 'confirmed', seat_count, 0)) AS sold,
                    sum(iif(status = 'held' AND expires_at > ?, seat_count, 0)) AS held
             FROM reservations WHERE status IN ('held', 'confirmed') GROUP BY date_id)
         SELECT 'date ' || lower(hex(d.id)) || ' of ' || d.seats_total || ' seats has ' || coalesce(n.total, 0) || ': '
                || coalesce(n.available, 0) || ' available, ' || coalesce(n.held, 0) || ' held (reservations: ' || coalesce(c.held, 0)
                || '), ' || coalesce(n.sold, 0) || ' sold (reservations: ' || coalesce(c.sold, 0) || ')'
         FROM dates d LEFT JOIN counted n ON n.date_id = d.id LEFT JOIN claimed c ON c.date_id = d.id
         WHERE d.seats_total <> coalesce(n.total, 0) OR d.seats_total <> coalesce(n.available + n.held + n.sold, 0)
            OR coalesce(n.held, 0) <> coalesce(c.held, 0) OR coalesce(n.sold, 0) <> coalesce(c.sold, 0)
         LIMIT ?";
    SeatsHaveADate -> Text =
        "SELECT 'date ' || lower(hex(date_id)) || ' is missing, it has ' || count(*) || ' seats' FROM seats
         WHERE date_id NOT IN (SELECT id FROM dates) GROUP BY date_id LIMIT ?";
    PointsAreSums -> Text =
        "SELECT 'account ' || lower(hex(a.user_id)) || ' has ' || a.points || ' points after ' || a.points_entries
                || ' entries, which sum to ' || coalesce(e.total, 0) || ' in ' || coalesce(e.lines, 0)
         FROM accounts a LEFT JOIN
              (SELECT user_id, sum(points) AS total, count(*) AS lines, max(seq) AS last FROM points_entries GROUP BY user_id) e
           ON e.user_id = a.user_id
         WHERE a.points <> coalesce(e.total, 0) OR a.points_entries <> coalesce(e.lines, 0) OR a.points_entries <> coalesce(e.last, 0)
         LIMIT ?";
    PointsFollowEachOther -> Text =
        "SELECT 'points entry ' || seq || ' of user ' || lower(hex(user_id)) || ' begins at ' || before || ', the one before it left '
                || previous
         FROM (SELECT user_id, seq, before, lag(balance, 1, 0) OVER (PARTITION BY user_id ORDER BY seq) AS previous FROM points_entries)
         WHERE before <> previous LIMIT ?";
    PaymentsMovePointsOnce -> Text =
        "WITH moved AS MATERIALIZED (
             SELECT payment_id, user_id, sum(iif(kind = 'grant', points, 0)) AS granted, sum(iif(kind = 'spend', points, 0)) AS spent,
                    sum(iif(kind = 'restore', points, 0)) AS restored, sum(iif(kind = 'take_back', points, 0)) AS taken
             FROM points_entries GROUP BY payment_id, user_id)
         SELECT 'payment ' || lower(hex(p.id)) || ' spent ' || p.points_spent || ' points and granted ' || p.points_granted
                || ', entered as ' || coalesce(-m.spent, 0) || ' and ' || coalesce(m.granted, 0) || '; its refund restored '
                || coalesce(p.points_restored, 0) || ' and took ' || coalesce(p.points_taken, 0) || ', entered as '
                || coalesce(m.restored, 0) || ' and ' || coalesce(-m.taken, 0)
         FROM payments p LEFT JOIN moved m ON m.payment_id = p.id AND m.user_id = p.user_id
         WHERE coalesce(m.granted, 0) <> p.points_granted OR coalesce(m.spent, 0) <> -p.points_spent
            OR coalesce(m.restored, 0) <> coalesce(p.points_restored, 0) OR coalesce(m.taken, 0) <> -coalesce(p.points_taken, 0)
         UNION ALL
         SELECT 'points entries of user ' || lower(hex(m.user_id)) || ' name payment ' || lower(hex(m.payment_id))
                || ', which is not theirs'
         FROM moved m WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = m.payment_id AND p.user_id = m.user_id)
         LIMIT ?";
    UsersKeepTheLimit -> Text =
        "SELECT 'user ' || lower(hex(user_id)) || ' has ' || sum(seat_count) || ' seats of date ' || lower(hex(date_id))
         FROM reservations WHERE status IN ('held', 'confirmed') AND (status = 'confirmed' OR expires_at > ?)
         GROUP BY user_id, date_id HAVING sum(seat_count) > ? LIMIT ?";
    AmountsArePricesLessPoints -> Text =
        "SELECT 'payment ' || lower(hex(id)) || ' of ' || amount || ' money and ' || points_spent || ' points is for seats of ' || total
         FROM (SELECT p.id, p.amount, p.points_spent,
                      (SELECT sum(value ->> 'price') FROM json_each(r.snapshot, '$.seats')) AS total
               FROM payments p JOIN reservations r ON r.id = p.reservation_id)
         WHERE amount <> total - points_spent LIMIT ?";
    CountAccounts -> BigInt = "SELECT count(*) FROM accounts";
    CountEntries -> BigInt = "SELECT count(*) FROM entries";
    CountSeats -> BigInt = "SELECT count(*) FROM seats";
    CountReservations -> BigInt = "SELECT count(*) FROM reservations";
    CountPayments -> BigInt = "SELECT count(*) FROM payments";
    CountReplies -> BigInt = "SELECT count(*) FROM replies";
    CountOverdue -> BigInt = "SELECT count(*) FROM reservations WHERE status = 'held' AND expires_at <= ?";
}

const LIMIT: i64 = BREACHES_MAX as i64;

#[async_trait]
impl Audit for SqliteStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let clock = self.clock.clone();
        let read = self.readers.read(move |conn| {
            // The snapshot is taken by the first read; the clock is asked before it, so no hold that ran out since
            // counts as live.
            conn.transaction(|conn| audit(conn, max_seats_per_user, clock.now()))
        });
        Ok(read.await?)
    }
}

fn audit(conn: &mut SqliteConnection, limit: u32, now: Timestamp) -> Result<AuditReport, Failure> {
    let mut report = AuditReport::default();
    let mut check = |invariant: &'static str, lines: Vec<String>| {
        let found = report.breaches.iter().filter(|breach| breach.invariant == invariant).count();
        let breaches = lines.into_iter().take(BREACHES_MAX - found).map(|detail| Breach { invariant, detail });
        report.breaches.extend(breaches);
    };
    let now = At(now);
    check("I1", rows::<SeatsNameTheirReservation, _, _>(conn, (LIMIT,))?);
    check("I1", rows::<ReservationsAreNamedByTheirSeats, _, _>(conn, (now, LIMIT))?);
    check("I1", rows::<ConfirmedReservationsArePaid, _, _>(conn, (LIMIT,))?);
    check("I1", rows::<PaymentsHaveTheirReservation, _, _>(conn, (LIMIT,))?);
    check("I2", rows::<BalancesAreSums, _, _>(conn, (LIMIT,))?);
    check("I2", rows::<EntriesFollowEachOther, _, _>(conn, (LIMIT,))?);
    check("I2", rows::<EntriesHaveAnAccount, _, _>(conn, (LIMIT,))?);
    check("I2", rows::<PaymentsMoveMoneyOnce, _, _>(conn, (LIMIT,))?);
    check("I3", rows::<EntryIdsAreUnique, _, _>(conn, (LIMIT,))?);
    check("I3", rows::<RepliesHaveTheirEffect, _, _>(conn, (LIMIT,))?);
    check("I3", rows::<EffectsAreClaimedOnce, _, _>(conn, (LIMIT,))?);
    check("I6", rows::<DatesCountTheirSeats, _, _>(conn, (now, now, now, LIMIT))?);
    check("I6", rows::<SeatsHaveADate, _, _>(conn, (LIMIT,))?);
    check("I9", rows::<PointsAreSums, _, _>(conn, (LIMIT,))?);
    check("I9", rows::<PointsFollowEachOther, _, _>(conn, (LIMIT,))?);
    check("I9", rows::<PaymentsMovePointsOnce, _, _>(conn, (LIMIT,))?);
    check("I10", rows::<UsersKeepTheLimit, _, _>(conn, (now, i64::from(limit), LIMIT))?);
    check("I11", rows::<AmountsArePricesLessPoints, _, _>(conn, (LIMIT,))?);
    let count = |found: Option<i64>| found.unwrap_or(0).unsigned_abs();
    report.counted = vec![
        ("accounts", count(row::<CountAccounts, _, _>(conn, ())?)),
        ("entries", count(row::<CountEntries, _, _>(conn, ())?)),
        ("seats", count(row::<CountSeats, _, _>(conn, ())?)),
        ("reservations", count(row::<CountReservations, _, _>(conn, ())?)),
        ("payments", count(row::<CountPayments, _, _>(conn, ())?)),
        ("replies", count(row::<CountReplies, _, _>(conn, ())?)),
    ];
    report.overdue_holds = count(row::<CountOverdue, _, _>(conn, (now,))?);
    Ok(report)
}
