//! The servers under test, processes of their own on one PostgreSQL and one Redis.

use anyhow::{Context, Result, bail};
use boxoffice_app::config::{self, Layers};
use boxoffice_app::wiring::ScratchDatabase;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::process::Child;
use uuid::Uuid;

use crate::client::Connection;
use crate::process;

/// The secret of bearer tokens.
const SECRET: &str = "crowds-are-signed-with-this-secret";
/// Clock ticks a second in which Linux counts processor time.
const TICKS_PER_S: f64 = 100.0;

pub(crate) struct Servers {
    pub(crate) addresses: Vec<String>,
    pub(crate) concert: String,
    children: Vec<Child>,
    database: ScratchDatabase,
}

/// Of all servers together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) memory_kib: f64,
}

/// A bearer token of this user.
pub(crate) fn bearer(user: Uuid, operator: bool) -> Result<String> {
    let mut claims = json!({ "sub": user, "exp": 4_000_000_000_u64 });
    if operator {
        claims["role"] = json!("operator");
    }
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

impl Servers {
    pub(crate) async fn start(instances: usize, queue: &str, rate: u32) -> Result<Self> {
        // A database of its own, without rooms of earlier runs.
        let mut settings = config::load(&Layers::of_process(None, Vec::new()))?;
        let database = ScratchDatabase::create(&mut settings).await?;
        let url = format!("store.postgres_url={}", settings.store.postgres_url.expose());
        let mut servers = Self { addresses: Vec::new(), concert: String::new(), children: Vec::new(), database };
        for _ in 0..instances {
            let (child, address) = spawn(queue, &url).await?;
            servers.children.push(child);
            servers.addresses.push(address);
        }
        let operator = bearer(Uuid::new_v8(rand::random()), true)?;
        let document = json!({
            "key": Uuid::new_v8(rand::random()).to_string(), "name": "Crowd", "venue": "Hall",
            "admission": { "max_active": 1_000_000, "per_interval": { "count": rate, "seconds": 1 } },
            "dates": [{
                "key": "d", "starts_at": "2100-01-02T00:00:00Z", "booking_opens_at": "2000-01-01T00:00:00Z", "booking_closes_at": "2100-01-01T00:00:00Z",
                "seats": [{ "from": 1, "to": 1_000, "grade": "R", "price": 1 }],
            }],
        });
        let made = servers.json(0, "POST", "/api/v1/admin/concerts", &operator, Some(&document)).await?;
        servers.concert = made["id"].as_str().context("no id")?.to_owned();
        // Other instances show it within a second.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        Ok(servers)
    }

    async fn json(&self, at: usize, method: &str, path: &str, bearer: &str, body: Option<&Value>) -> Result<Value> {
        let host = &self.addresses[at];
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = Connection::open(host, None).await?.send(request.as_bytes()).await?;
        let text = String::from_utf8(answer.body)?;
        if answer.status >= 300 {
            bail!("{method} {path}: {} {text}", answer.status);
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Statements and Redis commands of all servers.
    pub(crate) async fn store_calls(&self) -> Result<f64> {
        let mut sum = 0.0;
        for host in &self.addresses {
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = Connection::open(host, None).await?.send(request.as_bytes()).await?;
            let text = String::from_utf8(answer.body)?;
            let counted =
                |line: &&str| line.starts_with("boxoffice_store_statements_total") || line.starts_with("boxoffice_redis_commands_total");
            sum += text.lines().filter(counted).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(sum)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for child in &self.children {
            let id = child.id().context("a server has ended")?;
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
            // The name, in parentheses, may contain any character.
            let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("no time");
            usage.cpu_s += (ticks(11)? + ticks(12)?) / TICKS_PER_S;
            let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
            let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            usage.memory_kib += memory.split_whitespace().next().context("no figure")?.parse::<f64>()?;
        }
        Ok(usage)
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        for child in &mut self.children {
            child.kill().await?;
        }
        self.database.remove().await;
        Ok(())
    }
}

async fn spawn(queue: &str, database: &str) -> Result<(Child, String)> {
    let secret = format!("auth.hs256_secret={SECRET}");
    let queue = format!("queue.backend={queue}");
    let set = [
        // Other instances, stores and clients run on the same cores.
        "http.workers=1",
        "http.requests_per_second_per_user=0",
        "store.backend=postgres",
        database,
        &queue,
        "auth.mode=jwt",
        "auth.algorithm=HS256",
        &secret,
        "admission.stock_linked=false",
    ];
    process::spawn(&set).await
}
