//! The same writes, one transaction at a time, as a server without batches does them.

use super::seed::{Shop, user};
use anyhow::{Context, Result, bail};
use boxoffice_services::Postgres;
use std::process::Command;

const CLIENTS: &str = "64";
const SECONDS: &str = "4";

#[derive(Clone, Copy)]
pub(crate) enum Script {
    Charge,
    Hold,
    HoldAndPay,
}

/// A stored reply and an event, as long as the server's.
const REPLY: &str =
    "INSERT INTO replies VALUES (USER, gen_random_uuid(), sha256('request'), repeat('x', BYTES), now(), now() + interval '1 day');\n";
const EVENT: &str = "INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 200), now());\n";

/// Transactions a second.
pub(crate) fn pgbench(cluster: &Postgres, url: &str, script: Script, shop: &Shop) -> Result<f64> {
    let text = script.text(shop);
    let mut path = std::env::temp_dir();
    path.push(format!("boxoffice-{}.sql", std::process::id()));
    std::fs::write(&path, text)?;
    let output = Command::new(cluster.bin().join("pgbench"))
        .args(["-n", "-M", "prepared", "-c", CLIENTS, "-j", "2", "-T", SECONDS, "-f"])
        .arg(&path)
        .arg(url)
        .output()
        .context("pgbench")?;
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => bail!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

impl Script {
    fn text(self, shop: &Shop) -> String {
        let mut text = String::from("\\set shard random(0, 15)\n");
        match self {
            Self::Charge => {
                let user = user(0);
                text += "BEGIN;\n";
                text += &format!("SELECT balance, entries FROM accounts WHERE user_id = '{user}' FOR UPDATE \\gset\n");
                text += &format!(
                    "UPDATE accounts SET balance = balance + 1, entries = entries + 1, version = version + 1 WHERE user_id = '{user}';\n"
                );
                text += &format!(
                    "INSERT INTO entries VALUES ('{user}', :entries::bigint + 1, gen_random_uuid(), 'charge', 1, :balance::bigint, :balance::bigint + 1,
                     NULL, NULL, NULL, now());\n"
                )
                .replace("\n                     ", " ");
                text += &REPLY.replace("USER", &format!("'{user}'")).replace("BYTES", "300");
                text += EVENT;
                text += "COMMIT;\n";
            }
            Self::Hold => text += &hold(shop),
            Self::HoldAndPay => {
                text += &hold(shop);
                text += PAY;
            }
        }
        text
    }
}

/// A hold of the next seat from the far end, by a user of its own.
fn hold(shop: &Shop) -> String {
    let mut text = String::from("SELECT nextval('taken') AS n, gen_random_uuid() AS r \\gset\n");
    text += &shop.sql_of_taken();
    text += &shop.sql_of_random_user();
    text += HOLD;
    text
}

const HOLD: &str = "BEGIN;
SELECT version FROM seats WHERE date_id = ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid AND number = :number::integer FOR UPDATE;
SELECT version FROM accounts WHERE user_id = :u FOR UPDATE;
SELECT count(*) FROM reservations WHERE user_id = :u AND date_id = ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid AND status IN ('held', 'confirmed');
UPDATE seats SET state = 'held', reservation_id = :r, held_until = now() + interval '5 minutes', version = version + 1, changed_xid = pg_current_xact_id() WHERE date_id = ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid AND number = :number::integer;
INSERT INTO reservations VALUES (:r, :u, gen_random_uuid(), ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid, 'held', now(), now() + interval '5 minutes', 0, ARRAY[:number::integer], NULL, repeat('x', 220), 1);
UPDATE accounts SET version = version + 1 WHERE user_id = :u;
INSERT INTO replies VALUES (:u, gen_random_uuid(), sha256('request'), repeat('x', 600), now(), now() + interval '1 day');
INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 160), now());
INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 300), now());
COMMIT;
";

const PAY: &str = "SELECT gen_random_uuid() AS p \\gset
BEGIN;
SELECT version FROM reservations WHERE id = :r FOR UPDATE;
SELECT version FROM seats WHERE date_id = ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid AND number = :number::integer FOR UPDATE;
SELECT balance, entries, points, points_entries FROM accounts WHERE user_id = :u FOR UPDATE \\gset
INSERT INTO payments VALUES (:p, :r, :u, gen_random_uuid(), 100, 0, 5, now(), NULL, NULL, NULL, NULL, NULL, 1);
UPDATE reservations SET status = 'confirmed', payment_id = :p, version = version + 1 WHERE id = :r;
UPDATE seats SET state = 'sold', held_until = NULL, version = version + 1, changed_xid = pg_current_xact_id() WHERE date_id = ('0da7e000-0000-0000-0000-' || lpad(to_hex(:date::bigint), 12, '0'))::uuid AND number = :number::integer;
UPDATE accounts SET balance = balance - 100, points = points + 5, entries = entries + 1, points_entries = points_entries + 1, version = version + 1 WHERE user_id = :u;
INSERT INTO entries VALUES (:u, :entries::bigint + 1, gen_random_uuid(), 'payment', -100, :balance::bigint, :balance::bigint - 100, NULL, :r, :p, now());
INSERT INTO points_entries VALUES (:u, :points_entries::bigint + 1, gen_random_uuid(), 'grant', 5, :points::bigint, :points::bigint + 5, :p, now());
INSERT INTO replies VALUES (:u, gen_random_uuid(), sha256('request'), repeat('x', 800), now(), now() + interval '1 day');
INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 160), now());
INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 300), now());
INSERT INTO outbox VALUES (:shard, nextval('outbox_ids'), repeat('x', 300), now());
COMMIT;
";
