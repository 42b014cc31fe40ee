//! The server under test, a process of its own.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use crate::client::Connection;
use crate::process;

pub(crate) struct Server {
    pub address: String,
    child: Child,
    _folder: TempDir,
}

/// A user with an active turn.
pub(crate) struct Turn {
    pub token: String,
    pub queue_token: String,
    pub date: String,
}

/// Counters of the server since its start.
pub(crate) struct Counters {
    pub commands: f64,
    pub batches: f64,
}

impl Server {
    pub(crate) async fn start(set: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let database = format!("store.sqlite_path={}", folder.path().join("boxoffice.db").display());
        let (child, address) = process::spawn(&[&[database.as_str()], set].concat()).await?;
        Ok(Self { address, child, _folder: folder })
    }

    /// Resident memory.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        let id = self.child.id().context("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib / 1_024.0)
    }

    pub(crate) async fn counters(&self) -> Result<Counters> {
        let text = self.send("GET", "/metrics", "", None).await?.1;
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        Ok(Counters { commands: sum("boxoffice_commands_total"), batches: sum("boxoffice_batches_total") })
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let host = &self.address;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{kind}Content-Length: {}\r\n\r\n{body}", body.len());
        let answer = Connection::open(host).await?.send(request.as_bytes()).await?;
        Ok((answer.status, String::from_utf8(answer.body)?))
    }

    async fn json(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Result<Value> {
        let (status, text) = self.send(method, path, headers, body).await?;
        if status >= 300 {
            bail!("{method} {path}: {status} {text}");
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// A new user's id and bearer token.
    pub(crate) async fn user(&self, operator: bool) -> Result<(String, String)> {
        let made = self.json("POST", "/api/v1/dev/users", "", Some(&json!({ "name": "bench", "operator": operator }))).await?;
        Ok((text(&made, "user_id")?, text(&made, "access_token")?))
    }

    /// The n-th charge of a connection, all of them to the wallet of `token`.
    pub(crate) fn charge(&self, token: &str) -> impl Fn(usize, u64) -> Vec<u8> + Clone + Send + 'static {
        let head = format!("POST /api/v1/wallet/charges HTTP/1.1\r\nHost: {}\r\n{}", self.address, bearer(token));
        move |connection, n| {
            let body = r#"{"amount":1}"#;
            let length = body.len();
            format!("{head}Idempotency-Key: {connection}-{n}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                .into_bytes()
        }
    }

    /// Puts a hall of so many seats on sale and waits for a turn.
    pub(crate) async fn turn_for_a_hall(&self, seats: u32) -> Result<Turn> {
        let operator = bearer(&self.user(true).await?.1);
        let rows = (0..seats / 50).map(|row| {
            json!({ "from": row * 50 + 1, "to": row * 50 + 50, "grade": (["VIP", "R", "S"][row as usize % 3]), "price": 90_000, "section": format!("{}", row / 20), "row": format!("{}", row % 20) })
        });
        let document = json!({
            "key": "bench", "name": "Benchmark", "venue": "Hall", "dates": [{
                "key": "d", "starts_at": "2100-01-02T00:00:00Z", "booking_opens_at": "2000-01-01T00:00:00Z", "booking_closes_at": "2100-01-01T00:00:00Z",
                "seats": rows.collect::<Vec<_>>(),
            }],
        });
        let made = self.json("POST", "/api/v1/admin/concerts", &operator, Some(&document)).await?;
        let (concert, date) = (text(&made, "id")?, text(&made["dates"][0], "id")?);
        let token = self.user(false).await?.1;
        let joined = loop {
            let (status, body) = self.send("POST", &format!("/api/v1/concerts/{concert}/queue"), &bearer(&token), None).await?;
            if status < 300 {
                break serde_json::from_str::<Value>(&body)?;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        let mut queue_token = text(&joined, "token")?;
        loop {
            let headers = format!("{}Queue-Token: {queue_token}\r\n", bearer(&token));
            let place = self.json("GET", "/api/v1/queue", &headers, None).await?;
            queue_token = text(&place, "token")?;
            if place["status"] == "active" {
                return Ok(Turn { token, queue_token, date });
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Changes the seat map twice.
    pub(crate) async fn hold_and_release(&self, turn: &Turn, seat: u32) -> Result<()> {
        let headers = format!("{}Queue-Token: {}\r\n", bearer(&turn.token), turn.queue_token);
        let keyed = format!("{headers}Idempotency-Key: {}\r\n", uuid::Uuid::from_u128(rand::random()));
        let held = self.json("POST", "/api/v1/reservations", &keyed, Some(&json!({ "date_id": turn.date, "seats": [seat] }))).await?;
        self.json("DELETE", &format!("/api/v1/reservations/{}", text(&held, "id")?), &headers, None).await?;
        Ok(())
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no {field} in {value}"))?.to_owned())
}
