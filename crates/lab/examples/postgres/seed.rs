//! The rows that are there before a measurement.

use anyhow::Result;
use boxoffice_domain::{DateId, UserId};
use boxoffice_services::Postgres;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

const DATES: u32 = 20;
const SEATS_PER_DATE: u32 = 100_000;
const USERS: u32 = 200_000;
/// The balance of each user, enough for all payments.
const BALANCE: i64 = 1_000_000_000;

/// Halls whose seats are taken one after the other, and users with money.
pub(crate) struct Shop {
    next: AtomicU32,
}

/// Ids of dates and users contain their numbers, so that SQL and clients can compute them.
pub(crate) fn date(number: u32) -> DateId {
    Uuid::from_u128(0x0da7_e000_0000_0000_0000_0000_0000_0000 | u128::from(number)).into()
}

/// Spread like random ids.
pub(crate) fn user(number: u32) -> UserId {
    let spread = number.wrapping_mul(SPREAD);
    Uuid::from_u128(u128::from(spread) << 96 | 0x7000_8000_u128 << 48 | u128::from(number)).into()
}

/// The id of user `number`, in SQL.
pub(crate) fn sql_of_user(number: &str) -> String {
    format!(
        "(lpad(to_hex({number}::bigint * {SPREAD} % 4294967296), 8, '0') || '-0000-7000-8000-' || lpad(to_hex({number}::bigint), 12, '0'))::uuid"
    )
}

const SPREAD: u32 = 2_654_435_761;

impl Shop {
    pub(crate) fn seed(cluster: &Postgres, url: &str) -> Result<Self> {
        let concert = date(u32::MAX);
        cluster.sql_in(
            url,
            &format!(
                "INSERT INTO concerts (id, key, name, venue, time_zone, mode, max_active)
                 VALUES ('{concert}', 'moonlight', 'Moonlight Tour', 'Olympic Hall', 'Asia/Seoul', 'running', 100)"
            ),
        )?;
        for number in 0..DATES {
            let date = date(number);
            cluster.sql_in(
                url,
                &format!(
                    "INSERT INTO dates (id, concert_id, key, starts_at, booking_opens_at, booking_closes_at, refund_closes_at,
                         seats_total, price_min, price_max, seats_version)
                     VALUES ('{date}', '{concert}', 'day-{number}', now() + interval '30 days', now() - interval '1 hour',
                         now() + interval '29 days', now() + interval '28 days', {SEATS_PER_DATE}, 100, 100, 1);
                     INSERT INTO seats (date_id, number, grade, price, state, version)
                     SELECT '{date}', number, 'R', 100, 'available', 1 FROM generate_series(1, {SEATS_PER_DATE}) number"
                ),
            )?;
        }
        let id = sql_of_user("number");
        cluster.sql_in(
            url,
            &format!(
                "INSERT INTO accounts SELECT {id}, {BALANCE}, 0, 1, 0, 1 FROM generate_series(0, {USERS} - 1) number;
                 INSERT INTO entries SELECT {id}, 1, gen_random_uuid(), 'charge', {BALANCE}, 0, {BALANCE}, NULL, NULL, NULL, now()
                 FROM generate_series(0, {USERS} - 1) number"
            ),
        )?;
        // For pgbench, which takes seats from the other end by numbers of its own.
        cluster.sql_in(url, "CREATE SEQUENCE taken CACHE 100")?;
        cluster.sql_in(url, "VACUUM ANALYZE")?;
        cluster.sql_in(url, "CHECKPOINT")?;
        Ok(Self { next: AtomicU32::new(0) })
    }

    /// A fresh seat, and a user with few seats.
    pub(crate) fn take(&self) -> (UserId, DateId, u32) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (user(next % USERS), date(next / SEATS_PER_DATE % DATES), next % SEATS_PER_DATE + 1)
    }

    /// A random user, as pgbench's `:u`.
    pub(crate) fn sql_of_random_user(&self) -> String {
        format!("\\set user random(0, {USERS} - 1)\nSELECT {} AS u \\gset\n", sql_of_user(":user"))
    }

    /// The user of pgbench's seat `:n`, its date and number, in SQL.
    pub(crate) fn sql_of_taken(&self) -> String {
        let last = date(DATES - 1).0.as_u128() as u32;
        format!("\\set back :n / {SEATS_PER_DATE}\n\\set number {SEATS_PER_DATE} - :n % {SEATS_PER_DATE}\n\\set date {last} - :back\n")
    }

    /// Fills the tables that grow: past replies and reservations of many users.
    pub(crate) fn grow(&self, cluster: &Postgres, url: &str, replies: u32, reservations: u32) -> Result<()> {
        const STEP: u32 = 250_000;
        for first in (0..replies).step_by(STEP as usize) {
            cluster.sql_in(
                url,
                &format!(
                    "INSERT INTO replies SELECT gen_random_uuid(), gen_random_uuid(), sha256('{first}'), repeat('x', 300), now(),
                         now() + interval '1 day' FROM generate_series(1, {STEP})"
                ),
            )?;
        }
        for _ in (0..reservations).step_by(STEP as usize) {
            cluster.sql_in(
                url,
                &format!(
                    "INSERT INTO reservations
                     SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'released', now(),
                         now() + interval '5 minutes', 0, '{{1}}', NULL, repeat('{}', 1), 1 FROM generate_series(1, {STEP})",
                    "x".repeat(220)
                ),
            )?;
        }
        cluster.sql_in(url, "VACUUM ANALYZE")?;
        cluster.sql_in(url, "CHECKPOINT")?;
        Ok(())
    }
}
