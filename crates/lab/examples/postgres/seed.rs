//! What is there before anything is measured.

use anyhow::Result;
use boxoffice_domain::{DateId, UserId};
use boxoffice_services::Postgres;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

const DATES: u32 = 20;
const SEATS_PER_DATE: u32 = 100_000;
const USERS: u32 = 200_000;
/// What each user has: as many payments as anybody makes here.
const BALANCE: i64 = 1_000_000_000;

/// Halls with seats that are taken one after the other, and users with money.
pub(crate) struct Shop {
    next: AtomicU32,
}

/// Dates and users have numbers for ids, so that SQL and clients know them without asking.
pub(crate) fn date(number: u32) -> DateId {
    Uuid::from_u128(0x0da7_e000_0000_0000_0000_0000_0000_0000 | u128::from(number)).into()
}

/// Spread like random ones.
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
        // For pgbench, which numbers what it takes by itself, from the other end.
        cluster.sql_in(url, "CREATE SEQUENCE taken CACHE 100")?;
        cluster.sql_in(url, "VACUUM ANALYZE")?;
        cluster.sql_in(url, "CHECKPOINT")?;
        Ok(Self { next: AtomicU32::new(0) })
    }

    /// A seat that nobody had, and somebody who has few.
    pub(crate) fn take(&self) -> (UserId, DateId, u32) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (user(next % USERS), date(next / SEATS_PER_DATE % DATES), next % SEATS_PER_DATE + 1)
    }

    /// Somebody, as pgbench's `:u`.
    pub(crate) fn sql_of_somebody(&self) -> String {
        format!("\\set who random(0, {USERS} - 1)\nSELECT {} AS u \\gset\n", sql_of_user(":who"))
    }

    /// The user of pgbench's seat `:n`, its date and number, in SQL.
    pub(crate) fn sql_of_taken(&self) -> String {
        let last = date(DATES - 1).0.as_u128() as u32;
        format!("\\set back :n / {SEATS_PER_DATE}\n\\set number {SEATS_PER_DATE} - :n % {SEATS_PER_DATE}\n\\set date {last} - :back\n")
    }

    /// Fills the tables that grow: replies and reservations of many users, long over.
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
