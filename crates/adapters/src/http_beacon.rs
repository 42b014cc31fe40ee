//! The public beacon that is mixed into draws, over HTTP.
//!
//! One GET a sale, with the second of its start in the address. The body of a 200, trimmed, is the value; any other
//! answer means that there is none yet. The rooms ask until there is one; this adapter sends at most one request in
//! [`RETRY_PAUSE`], over all draws. Values are cached, at most [`VALUES_MAX`] of them. Instances that get different
//! answers still draw the same: the value that was written first counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_ports::{Beacon, Source};
use reqwest::{Client, StatusCode};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The pause between two requests.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest value, bytes; a longer one is refused.
const VALUE_BYTES_MAX: usize = 4_096;
/// Cached values; beyond it the cache is emptied and each value is requested again.
const VALUES_MAX: usize = 1_000;

/// See the module's opening.
pub struct HttpBeacon {
    template: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    requested_at: Option<Instant>,
    values: HashMap<i64, String>,
    /// Why the last request brought no value.
    failure: Option<String>,
}

impl HttpBeacon {
    /// `template` is the address of a value, with `{unix}` where the second of a sale's start stands.
    pub fn new(template: String) -> Self {
        Self { template, state: Mutex::default() }
    }

    /// Why the last request brought no value; `None` before the first one, and after a success.
    pub fn last_failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under the lock can fail half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of the next request; an error within [`RETRY_PAUSE`] of the last one.
    fn client(&self) -> Result<Client, Source> {
        let mut state = self.state();
        if state.requested_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            return Err(state
                .failure
                .clone()
                .unwrap_or_else(|| "the last request to the beacon is less than a second old".to_owned())
                .into());
        }
        state.requested_at = Some(Instant::now());
        if let Some(client) = &state.client {
            return Ok(client.clone());
        }
        // Once a process; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(ANSWER_MAX).redirect(reqwest::redirect::Policy::none()).build()?;
        state.client = Some(client.clone());
        Ok(client)
    }

    async fn request(&self, client: &Client, unix: i64) -> Result<String, Source> {
        let mut answer = client.get(self.template.replace("{unix}", &unix.to_string())).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the beacon answers {}", answer.status()).into());
        }
        let mut bytes = Vec::new();
        while let Some(some) = answer.chunk().await? {
            bytes.extend_from_slice(&some);
            if bytes.len() > VALUE_BYTES_MAX {
                return Err(format!("the beacon's answer is longer than {VALUE_BYTES_MAX} bytes").into());
            }
        }
        let text = String::from_utf8(bytes)?;
        let value = text.trim();
        if value.is_empty() || value.chars().any(|char| char.is_control() && !char.is_whitespace()) {
            return Err("the beacon's answer is no printable text".into());
        }
        Ok(value.to_owned())
    }
}

#[async_trait]
impl Beacon for HttpBeacon {
    async fn value(&self, start: Timestamp) -> Result<String, Source> {
        let unix = start.timestamp();
        if let Some(value) = self.state().values.get(&unix) {
            return Ok(value.clone());
        }
        let client = self.client()?;
        let answered = self.request(&client, unix).await;
        let mut state = self.state();
        match &answered {
            Ok(value) => {
                if state.values.len() >= VALUES_MAX {
                    state.values.clear();
                }
                state.values.insert(unix, value.clone());
                state.failure = None;
            }
            Err(error) => state.failure = Some(format!("a draw waits for its beacon: {error}")),
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A beacon that gives these answers, one a request; the task returns the request lines.
    async fn answering(answers: Vec<String>) -> (HttpBeacon, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let template = format!("http://{}/at/{{unix}}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 2_048];
                let read = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (HttpBeacon::new(template), served)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn at(unix: i64) -> Timestamp {
        Timestamp::from_timestamp(unix, 999_000_000).unwrap()
    }

    #[tokio::test]
    async fn value_is_the_trimmed_text_of_the_second_and_requested_once() {
        let (beacon, served) = answering(vec![answer("200 OK", " 5f3a \n")]).await;
        for _ in 0..2 {
            assert_eq!(beacon.value(at(1_700_000_000)).await.unwrap(), "5f3a");
        }
        assert_eq!(served.await.unwrap(), ["GET /at/1700000000 HTTP/1.1"]);
        assert_eq!(beacon.last_failure(), None);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_value_is_reported_and_not_requested_again_at_once() {
        let too_long = "a".repeat(VALUE_BYTES_MAX + 1);
        for (status, body, reason) in [
            ("404 Not Found", "none", "404"),
            ("200 OK", "", "printable"),
            ("200 OK", "a\u{0}b", "printable"),
            ("200 OK", &too_long, "longer"),
        ] {
            let (beacon, served) = answering(vec![answer(status, body)]).await;
            let error = beacon.value(at(7)).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert_eq!(served.await.unwrap().len(), 1);
            let failure = beacon.last_failure().expect("it is kept for readiness");
            assert!(failure.contains(reason), "{failure}");
            // It does not even connect.
            beacon.value(at(7)).await.unwrap_err();
        }
    }
}
