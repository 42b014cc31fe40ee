//! The schema of many instances.

use super::{OF_DIESEL, Schema, compare, keys};
use boxoffice_adapters::postgres::{migrate, revert};
use boxoffice_services::Postgres;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn migrated(url: &str) -> Schema {
    let columns = "
        SELECT c.relname::text, a.attname::text,
               replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz'),
               EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attnum = ANY (k.conkey)),
               EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'u' AND a.attnum = ANY (k.conkey))
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped";
    let mut schema = Schema::new();
    for row in connect(url).await.query(columns, &[]).await.expect("the schema") {
        let [table, column, kind]: [String; 3] = [row.get(0), row.get(1), row.get(2)];
        if table != OF_DIESEL {
            schema.entry(table).or_default().insert(column, (kind, keys(row.get(3), row.get(4))));
        }
    }
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn diagram_shows_every_table_and_column_of_the_schema() {
    let url = Postgres::shared().database().expect("a database");
    assert_eq!(
        migrate(&url).expect("migrated"),
        [
            "0001_initial",
            "0002_waiting_room",
            "0003_relays",
            "0004_room_log",
            "0005_outbox_rooms",
            "0006_clock_set_back",
            "0007_catalog_changes"
        ]
    );
    compare("PostgreSQL", &migrated(&url).await, |postgres| postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn down_takes_back_what_up_made() {
    let url = Postgres::shared().database().expect("a database");
    migrate(&url).expect("migrated");
    revert(&url).expect("reverted");
    let left = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
                UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    let left = connect(&url).await.query(left, &[]).await.expect("read");
    let left: Vec<String> = left.iter().map(|row| row.get(0)).filter(|name: &String| !name.contains(OF_DIESEL)).collect();
    assert_eq!(left, Vec::<String>::new());
}
