//! PostgreSQL's plan for each statement, made on an empty database and on a full one: by index or by place, looping over
//! the arrays.

use super::statements::all_statements;
use crate::postgres::connect::{Address, Role};
use crate::postgres::migrate;
use boxoffice_ports::Deadline;
use boxoffice_services::Postgres;
use std::fmt::Write as _;
use std::time::Duration;
use tokio_postgres::Client;

/// Every statement's plan as a ledger's session caches it, without costs.
async fn plans(client: &Client) -> Vec<(&'static str, String)> {
    let mut plans = Vec::new();
    for (at, (_, sql)) in
        all_statements().into_iter().enumerate().filter(|(_, (_, sql))| !["BEGIN", "ROLLBACK"].iter().any(|word| sql.starts_with(word)))
    {
        client.batch_execute(&format!("PREPARE s{at} AS {sql}")).await.expect(sql);
        let count = "SELECT coalesce(cardinality(parameter_types), 0) FROM pg_prepared_statements WHERE name = $1";
        let count: i32 = client.query_one(count, &[&format!("s{at}")]).await.expect("a count").get(0);
        let values = vec!["NULL"; usize::try_from(count).expect("a count")].join(", ");
        let values = if count == 0 { String::new() } else { format!("({values})") };
        let rows = client.simple_query(&format!("EXPLAIN (COSTS OFF) EXECUTE s{at}{values}")).await.expect(sql);
        let mut plan = String::new();
        for row in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                let _ = writeln!(plan, "{}", row.get(0).unwrap_or_default());
            }
        }
        client.batch_execute(&format!("DEALLOCATE s{at}")).await.expect("deallocated");
        plans.push((sql, plan));
    }
    plans
}

/// The lines of scans that no key bounds: the line after a bounded scan names its condition.
fn unbounded(plan: &str) -> Vec<&str> {
    let lines: Vec<&str> = plan.lines().collect();
    let is_scan = |line: &str| ["Index Scan", "Index Only Scan", "Tid Scan"].iter().any(|scan| line.contains(scan));
    let is_bounded = |line: &str| line.contains("Index Cond:") || line.contains("TID Cond:");
    let scans = lines.iter().enumerate().filter(|(_, line)| is_scan(line));
    scans.filter(|(at, _)| !lines.get(at + 1).is_some_and(|next| is_bounded(next))).map(|(_, line)| *line).collect()
}

fn check(state: &str, plans: &[(&str, String)]) {
    for (sql, plan) in plans {
        for never in ["Seq Scan", "Bitmap", "Hash Join", "Merge Join"] {
            assert!(!plan.contains(never), "{state}: {never} in\n{sql}\n{plan}");
        }
        assert_eq!(unbounded(plan), Vec::<&str>::new(), "{state}: in\n{sql}\n{plan}");
        if sql.starts_with("UPDATE") && !sql.contains("a.user_id = k.id") {
            assert!(plan.contains("Tid Scan"), "{state}: not by place\n{sql}\n{plan}");
        }
        if sql.contains("status IN ('held', 'confirmed')") {
            assert!(plan.contains("reservations_occupying"), "{state}: {plan}");
        }
    }
}

const FULL: &str = "
    INSERT INTO concerts SELECT gen_random_uuid(), n, 'N', 'V', 'UTC', NULL, 'running', 1 FROM generate_series(1, 100) n;
    INSERT INTO dates SELECT gen_random_uuid(), id, 'k', now(), NULL, now(), now(), now(), 1, 1, 1, 1 FROM concerts;
    INSERT INTO seats SELECT id, n, NULL, NULL, 'R', 1, 'available', NULL, NULL, 1 FROM dates, generate_series(1, 500) n;
    INSERT INTO accounts SELECT gen_random_uuid(), 0, 0, 0, 0, 1 FROM generate_series(1, 50000);
    INSERT INTO replies SELECT user_id, gen_random_uuid(), sha256('r'), '{}', now(), now() FROM accounts;
    INSERT INTO reservations SELECT gen_random_uuid(), user_id, user_id, user_id, 'released', now(), now(), 0, '{1}', NULL, '', 1
        FROM accounts;
    INSERT INTO payments SELECT gen_random_uuid(), gen_random_uuid(), user_id, user_id, 1, 0, 0, now(), NULL, NULL, NULL, NULL, NULL, 1
        FROM accounts;
    ANALYZE";

#[tokio::test(flavor = "multi_thread")]
async fn statements_go_by_index_whatever_is_stored() {
    let url = Postgres::shared().database().expect("a database");
    migrate(&url).expect("migrated");
    let address = Address::parse(&url).expect("an address");
    let client = address.connect(Role::Ledger, Deadline::after(Duration::from_secs(30))).await.expect("a connection").drive();
    check("empty", &plans(&client).await);
    client.batch_execute(FULL).await.expect("full");
    let full = address.connect(Role::Ledger, Deadline::after(Duration::from_secs(30))).await.expect("a connection").drive();
    check("full", &plans(&full).await);
}

/// Rows are locked in the order of the arrays: the loop over an array is the outer one, and nothing sorts locked rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_locked_in_the_order_of_their_keys() {
    let url = Postgres::shared().database().expect("a database");
    migrate(&url).expect("migrated");
    let address = Address::parse(&url).expect("an address");
    let client = address.connect(Role::Ledger, Deadline::after(Duration::from_secs(30))).await.expect("a connection").drive();
    let plans = plans(&client).await;
    let plan_of = |what: &str| {
        // The statements that skip locked rows have the same clauses.
        let waits = |sql: &str| !sql.contains("SKIP LOCKED");
        let found = plans.iter().filter(|(sql, _)| sql.contains(what) && waits(sql)).map(|(_, plan)| plan.as_str()).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{what}");
        found[0]
    };
    assert_eq!(
        plan_of("FROM accounts WHERE user_id = k.id OFFSET 0 FOR NO KEY UPDATE"),
        "Nested Loop
  ->  Function Scan on unnest k
  ->  Subquery Scan on a
        ->  LockRows
              ->  Index Scan using accounts_pkey on accounts
                    Index Cond: (user_id = k.id)
"
    );
    assert_eq!(
        plan_of("SET version = a.version + 1 FROM unnest"),
        "Update on accounts a
  ->  Nested Loop
        ->  Function Scan on unnest k
        ->  Index Scan using accounts_pkey on accounts a
              Index Cond: (user_id = k.id)
"
    );
    for what in ["UNION SELECT r.date_id, unnest(r.seats)", "UNION SELECT p.reservation_id"] {
        let locking = plans.iter().find(|(sql, _)| sql.contains(what) && sql.contains("FOR NO KEY UPDATE")).map(|(_, plan)| plan);
        let plan = locking.expect(what);
        let (sort, lock) = (plan.find("Sort Key"), plan.find("LockRows"));
        assert!(plan.starts_with("Nested Loop") && sort.is_some() && sort < lock, "{plan}");
    }
}
