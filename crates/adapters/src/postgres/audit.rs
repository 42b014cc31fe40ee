//! The audit: the design's invariants as queries over one snapshot, beside whatever else runs.
//!
//! Each check selects one line of text for each row that breaks its invariant, at most [`BREACHES_MAX`]. They ask
//! what the constraints of the schema cannot say: sums, and what rows of different tables claim of each other. Each is
//! one pass over its tables (grouped, then joined), so a million reservations are a matter of seconds.

use super::PostgresStore;
use super::failure::Failure;
use super::pool::{Conn, Isolation};
use super::queries::now;
use super::sql::{Statement, row, rows, statements};
use async_trait::async_trait;
use boxoffice_ports::{Audit, AuditReport, BREACHES_MAX, Breach, StoreError};
use diesel::sql_types::{BigInt, Text};

statements! {
    /// For whole tables, sorting and hashing in memory; and no more time than it takes. For this transaction alone.
    TakeTime -> (Text, Text) =
        "SELECT set_config('statement_timeout', '0', true), set_config('work_mem', '64MB', true)";
    SeatsNameTheirReservation -> Text =
        "SELECT 'seat ' || s.number || ' of date ' || s.date_id || ' is ' || s.state || ' by reservation ' || s.reservation_id
                || ', which is ' || coalesce(r.status, 'missing')
         FROM seats s LEFT JOIN reservations r ON r.id = s.reservation_id
         WHERE s.state <> 'available'
           AND (r.id IS NULL OR r.date_id <> s.date_id OR r.status <> CASE s.state WHEN 'sold' THEN 'confirmed' ELSE 'held' END
                OR (s.state = 'held' AND s.held_until <> r.expires_at) OR s.number <> ALL (r.seats))
         LIMIT $1";
    ReservationsAreNamedByTheirSeats -> Text =
        "SELECT r.status || ' reservation ' || r.id || ' of ' || cardinality(r.seats) || ' seats is named by ' || coalesce(n.named, 0)
         FROM reservations r
         LEFT JOIN (SELECT date_id, reservation_id, state, count(*) AS named FROM seats WHERE reservation_id IS NOT NULL GROUP BY 1, 2, 3) n
           ON n.reservation_id = r.id AND n.date_id = r.date_id AND n.state = CASE r.status WHEN 'confirmed' THEN 'sold' ELSE 'held' END
         WHERE (r.status = 'confirmed' OR (r.status = 'held' AND r.expires_at > $1)) AND coalesce(n.named, 0) <> cardinality(r.seats)
         LIMIT $2";
    // The seats that a reservation locks are those that it was sold with.
    ReservationsListTheirSeats -> Text =
        "SELECT 'reservation ' || r.id || ' lists seats ' || r.seats::text || ' and was held for ' || (r.snapshot::jsonb -> 'seats')::text
         FROM reservations r
         WHERE r.seats IS DISTINCT FROM
             ARRAY(SELECT (seat ->> 'number')::integer FROM jsonb_array_elements(r.snapshot::jsonb -> 'seats') AS s (seat) ORDER BY 1)
         LIMIT $1";
    ConfirmedReservationsArePaid -> Text =
        "SELECT r.status || ' reservation ' || r.id || ' has '
                || CASE WHEN p.id IS NULL THEN 'no payment'
                        ELSE 'payment ' || p.id || CASE WHEN p.refunded_at IS NULL THEN ', paid' ELSE ', refunded' END END
         FROM reservations r LEFT JOIN payments p ON p.reservation_id = r.id
         WHERE (r.status IN ('confirmed', 'cancelled')
                AND (p.id IS NULL OR p.id <> r.payment_id OR (p.refunded_at IS NULL) <> (r.status = 'confirmed')))
            OR (r.status NOT IN ('confirmed', 'cancelled') AND p.id IS NOT NULL)
         LIMIT $1";
    PaymentsHaveTheirReservation -> Text =
        "SELECT 'payment ' || p.id || ' names reservation ' || p.reservation_id
                || CASE WHEN r.id IS NULL THEN ', which is missing' ELSE ' of another user or concert' END
         FROM payments p LEFT JOIN reservations r ON r.id = p.reservation_id
         WHERE r.id IS NULL OR r.user_id <> p.user_id OR r.concert_id <> p.concert_id LIMIT $1";
    BalancesAreSums -> Text =
        "SELECT 'account ' || a.user_id || ' holds ' || a.balance || ' after ' || a.entries || ' entries, which sum to '
                || coalesce(e.total, 0) || ' in ' || coalesce(e.lines, 0)
         FROM accounts a LEFT JOIN (SELECT user_id, sum(amount) AS total, count(*) AS lines, max(seq) AS last FROM entries GROUP BY user_id) e
           ON e.user_id = a.user_id
         WHERE a.balance <> coalesce(e.total, 0) OR a.entries <> coalesce(e.lines, 0) OR a.entries <> coalesce(e.last, 0) LIMIT $1";
    EntriesFollowEachOther -> Text =
        "SELECT 'entry ' || seq || ' of user ' || user_id || ' begins at ' || before || ', the one before it left ' || previous
         FROM (SELECT user_id, seq, before, lag(balance, 1, 0::bigint) OVER (PARTITION BY user_id ORDER BY seq) AS previous FROM entries) e
         WHERE before <> previous LIMIT $1";
    EntriesHaveAnAccount -> Text =
        "SELECT 'entry ' || e.seq || ' of user ' || e.user_id || ' has no account' FROM entries e
         WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.user_id = e.user_id) LIMIT $1";
    PaymentsMoveMoneyOnce -> Text =
        "WITH moved AS MATERIALIZED (
             SELECT payment_id, user_id, coalesce(sum(amount) FILTER (WHERE kind = 'payment'), 0) AS paid,
                    coalesce(sum(amount) FILTER (WHERE kind = 'refund'), 0) AS refunded,
                    count(*) FILTER (WHERE kind = 'payment') AS payments, count(*) FILTER (WHERE kind = 'refund') AS refunds,
                    count(*) FILTER (WHERE kind IN ('charge', 'use')) AS others
             FROM entries WHERE payment_id IS NOT NULL GROUP BY payment_id, user_id)
         SELECT 'payment ' || p.id || ' of ' || p.amount || ', refunded ' || coalesce(p.refund_amount, 0) || ', is entered as '
                || coalesce(m.paid, 0) || ' and ' || coalesce(m.refunded, 0)
         FROM payments p LEFT JOIN moved m ON m.payment_id = p.id AND m.user_id = p.user_id
         WHERE coalesce(m.paid, 0) <> -p.amount OR coalesce(m.refunded, 0) <> coalesce(p.refund_amount, 0)
            OR coalesce(m.payments, 0) > 1 OR coalesce(m.refunds, 0) > 1 OR coalesce(m.others, 0) > 0
         UNION ALL
         SELECT 'entries of user ' || m.user_id || ' name payment ' || m.payment_id || ', which is not theirs'
         FROM moved m WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = m.payment_id AND p.user_id = m.user_id)
         LIMIT $1";
    EntryIdsAreUnique -> Text =
        "SELECT count(*) || ' entries share the id ' || id FROM entries GROUP BY id HAVING count(*) > 1 LIMIT $1";
    RepliesHaveTheirEffect -> Text =
        "WITH claims AS MATERIALIZED (
             SELECT user_id, command_id, done ->> 'outcome' AS outcome, (done #>> '{entry,id}')::uuid AS entry,
                    (done #>> '{entry,user}')::uuid AS owner, (done #>> '{entry,seq}')::bigint AS seq,
                    (done #>> '{entry,amount}')::bigint AS amount, (done #>> '{reservation,id}')::uuid AS reservation,
                    (done #>> '{payment,id}')::uuid AS payment
             FROM (SELECT user_id, command_id, body::jsonb -> 'Ok' AS done FROM replies) r WHERE done IS NOT NULL)
         SELECT 'the reply of command ' || c.command_id || ' of user ' || c.user_id || ' says ' || c.outcome || ', which did not happen'
         FROM claims c
         LEFT JOIN entries e ON e.user_id = c.owner AND e.seq = c.seq
         LEFT JOIN payments p ON p.id = c.payment
         LEFT JOIN reservations h ON h.id = c.reservation
         WHERE CASE
             WHEN c.outcome = 'entered' THEN (e.id = c.entry AND e.amount = c.amount) IS NOT TRUE
             WHEN c.outcome = 'paid' THEN (p.reservation_id = c.reservation) IS NOT TRUE
             WHEN c.outcome = 'refunded' THEN (p.reservation_id = c.reservation AND p.refunded_at IS NOT NULL) IS NOT TRUE
             ELSE h.id IS NULL END
         LIMIT $1";
    EffectsAreClaimedOnce -> Text =
        "SELECT count(*) || ' replies claim ' || outcome || ' ' || id FROM (
             SELECT done ->> 'outcome' AS outcome, coalesce(done #>> '{entry,id}', done #>> '{payment,id}', done #>> '{reservation,id}') AS id
             FROM (SELECT body::jsonb -> 'Ok' AS done FROM replies) r
             WHERE done ->> 'outcome' IN ('entered', 'held', 'paid', 'refunded')) c
         GROUP BY outcome, id HAVING count(*) > 1 LIMIT $1";
    DatesCountTheirSeats -> Text =
        "WITH counted AS MATERIALIZED (
             SELECT date_id, count(*) AS total, count(*) FILTER (WHERE state = 'available' OR (state = 'held' AND held_until <= $1)) AS available,
                    count(*) FILTER (WHERE state = 'held' AND held_until > $1) AS held, count(*) FILTER (WHERE state = 'sold') AS sold
             FROM seats GROUP BY date_id),
         claimed AS MATERIALIZED (
             SELECT date_id, coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'confirmed'), 0) AS sold,
                    coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'held' AND expires_at > $1), 0) AS held
             FROM reservations WHERE status IN ('held', 'confirmed') GROUP BY date_id)
         SELECT 'date ' || d.id || ' of ' || d.seats_total || ' seats has ' || coalesce(n.total, 0) || ': '
                || coalesce(n.available, 0) || ' available, ' || coalesce(n.held, 0) || ' held (reservations: ' || coalesce(c.held, 0)
                || '), ' || coalesce(n.sold, 0) || ' sold (reservations: ' || coalesce(c.sold, 0) || ')'
         FROM dates d LEFT JOIN counted n ON n.date_id = d.id LEFT JOIN claimed c ON c.date_id = d.id
         WHERE d.seats_total <> coalesce(n.total, 0) OR d.seats_total <> coalesce(n.available + n.held + n.sold, 0)
            OR coalesce(n.held, 0) <> coalesce(c.held, 0) OR coalesce(n.sold, 0) <> coalesce(c.sold, 0)
         LIMIT $2";
    SeatsHaveADate -> Text =
        "SELECT 'date ' || s.date_id || ' is missing, it has ' || s.count || ' seats'
         FROM (SELECT date_id, count(*) FROM seats GROUP BY date_id) s
         WHERE NOT EXISTS (SELECT 1 FROM dates d WHERE d.id = s.date_id) LIMIT $1";
    PointsAreSums -> Text =
        "SELECT 'account ' || a.user_id || ' has ' || a.points || ' points after ' || a.points_entries || ' entries, which sum to '
                || coalesce(e.total, 0) || ' in ' || coalesce(e.lines, 0)
         FROM accounts a LEFT JOIN
              (SELECT user_id, sum(points) AS total, count(*) AS lines, max(seq) AS last FROM points_entries GROUP BY user_id) e
           ON e.user_id = a.user_id
         WHERE a.points <> coalesce(e.total, 0) OR a.points_entries <> coalesce(e.lines, 0) OR a.points_entries <> coalesce(e.last, 0)
         LIMIT $1";
    PointsFollowEachOther -> Text =
        "SELECT 'points entry ' || seq || ' of user ' || user_id || ' begins at ' || before || ', the one before it left ' || previous
         FROM (SELECT user_id, seq, before, lag(balance, 1, 0::bigint) OVER (PARTITION BY user_id ORDER BY seq) AS previous
               FROM points_entries) e
         WHERE before <> previous LIMIT $1";
    PointsHaveAnAccount -> Text =
        "SELECT 'points entry ' || e.seq || ' of user ' || e.user_id || ' has no account' FROM points_entries e
         WHERE NOT EXISTS (SELECT 1 FROM accounts a WHERE a.user_id = e.user_id) LIMIT $1";
    PaymentsMovePointsOnce -> Text =
        "WITH moved AS MATERIALIZED (
             SELECT payment_id, user_id, coalesce(sum(points) FILTER (WHERE kind = 'grant'), 0) AS granted,
                    coalesce(sum(points) FILTER (WHERE kind = 'spend'), 0) AS spent,
                    coalesce(sum(points) FILTER (WHERE kind = 'restore'), 0) AS restored,
                    coalesce(sum(points) FILTER (WHERE kind = 'take_back'), 0) AS taken
             FROM points_entries GROUP BY payment_id, user_id)
         SELECT 'payment ' || p.id || ' spent ' || p.points_spent || ' points and granted ' || p.points_granted || ', entered as '
                || coalesce(-m.spent, 0) || ' and ' || coalesce(m.granted, 0) || '; its refund restored ' || coalesce(p.points_restored, 0)
                || ' and took ' || coalesce(p.points_taken, 0) || ', entered as ' || coalesce(m.restored, 0) || ' and ' || coalesce(-m.taken, 0)
         FROM payments p LEFT JOIN moved m ON m.payment_id = p.id AND m.user_id = p.user_id
         WHERE coalesce(m.granted, 0) <> p.points_granted OR coalesce(m.spent, 0) <> -p.points_spent
            OR coalesce(m.restored, 0) <> coalesce(p.points_restored, 0) OR coalesce(m.taken, 0) <> -coalesce(p.points_taken, 0)
         UNION ALL
         SELECT 'points entries of user ' || m.user_id || ' name payment ' || m.payment_id || ', which is not theirs'
         FROM moved m WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = m.payment_id AND p.user_id = m.user_id)
         LIMIT $1";
    UsersKeepTheLimit -> Text =
        "SELECT 'user ' || user_id || ' has ' || sum(cardinality(seats)) || ' seats of date ' || date_id
         FROM reservations WHERE status IN ('held', 'confirmed') AND (status = 'confirmed' OR expires_at > $1)
         GROUP BY user_id, date_id HAVING sum(cardinality(seats)) > $2 LIMIT $3";
    AmountsArePricesLessPoints -> Text =
        "SELECT 'payment ' || id || ' of ' || amount || ' money and ' || points_spent || ' points is for seats of ' || total
         FROM (SELECT p.id, p.amount, p.points_spent,
                      (SELECT sum((seat ->> 'price')::bigint) FROM jsonb_array_elements(r.snapshot::jsonb -> 'seats') AS s (seat)) AS total
               FROM payments p JOIN reservations r ON r.id = p.reservation_id) c
         WHERE amount <> total - points_spent LIMIT $1";
    CountRows -> (BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, BigInt) =
        "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM entries), (SELECT count(*) FROM seats),
                (SELECT count(*) FROM reservations), (SELECT count(*) FROM payments), (SELECT count(*) FROM replies),
                (SELECT count(*) FROM reservations WHERE status = 'held' AND expires_at <= $1)";
}

const LIMIT: i64 = BREACHES_MAX as i64;

#[async_trait]
impl Audit for PostgresStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let mut conn = self.conn().await?.patient();
        conn.begin(Isolation::ReadOnly).await?;
        let report = audit(&mut conn, max_seats_per_user, self.offset_us()).await?;
        conn.rollback().await?;
        Ok(report)
    }
}

async fn audit(conn: &mut Conn, limit: u32, offset_us: i64) -> Result<AuditReport, Failure> {
    rows::<TakeTime, _, (String, String)>(conn, ()).await?;
    // The clock is asked within the snapshot, so whoever took a seat in it because its hold was over was right by then.
    let now = now(conn, offset_us).await?;
    let mut found = Found::default();
    found.check::<SeatsNameTheirReservation>(conn, "I1").await?;
    found.add("I1", rows::<ReservationsAreNamedByTheirSeats, _, _>(conn, (now, LIMIT)).await?);
    found.check::<ReservationsListTheirSeats>(conn, "I1").await?;
    found.check::<ConfirmedReservationsArePaid>(conn, "I1").await?;
    found.check::<PaymentsHaveTheirReservation>(conn, "I1").await?;
    found.check::<BalancesAreSums>(conn, "I2").await?;
    found.check::<EntriesFollowEachOther>(conn, "I2").await?;
    found.check::<EntriesHaveAnAccount>(conn, "I2").await?;
    found.check::<PaymentsMoveMoneyOnce>(conn, "I2").await?;
    found.check::<EntryIdsAreUnique>(conn, "I3").await?;
    found.check::<RepliesHaveTheirEffect>(conn, "I3").await?;
    found.check::<EffectsAreClaimedOnce>(conn, "I3").await?;
    found.add("I6", rows::<DatesCountTheirSeats, _, _>(conn, (now, LIMIT)).await?);
    found.check::<SeatsHaveADate>(conn, "I6").await?;
    found.check::<PointsAreSums>(conn, "I9").await?;
    found.check::<PointsFollowEachOther>(conn, "I9").await?;
    found.check::<PointsHaveAnAccount>(conn, "I9").await?;
    found.check::<PaymentsMovePointsOnce>(conn, "I9").await?;
    found.add("I10", rows::<UsersKeepTheLimit, _, _>(conn, (now, i64::from(limit), LIMIT)).await?);
    found.check::<AmountsArePricesLessPoints>(conn, "I11").await?;
    let counts: Option<(i64, i64, i64, i64, i64, i64, i64)> = row::<CountRows, _, _>(conn, (now,)).await?;
    let (accounts, entries, seats, reservations, payments, replies, overdue) = counts.unwrap_or_default();
    let names = ["accounts", "entries", "seats", "reservations", "payments", "replies"];
    let counts = [accounts, entries, seats, reservations, payments, replies].map(i64::unsigned_abs);
    Ok(AuditReport { breaches: found.0, counted: names.into_iter().zip(counts).collect(), overdue_holds: overdue.unsigned_abs() })
}

#[derive(Default)]
struct Found(Vec<Breach>);

impl Found {
    /// A check whose only value is how many lines it may give.
    async fn check<S: Statement<Columns = Text>>(&mut self, conn: &mut Conn, invariant: &'static str) -> Result<(), Failure> {
        self.add(invariant, rows::<S, _, _>(conn, (LIMIT,)).await?);
        Ok(())
    }

    /// Up to the bound for each invariant.
    fn add(&mut self, invariant: &'static str, lines: Vec<String>) {
        let found = self.0.iter().filter(|breach| breach.invariant == invariant).count();
        let room = BREACHES_MAX.saturating_sub(found);
        self.0.extend(lines.into_iter().take(room).map(|detail| Breach { invariant, detail }));
    }
}
