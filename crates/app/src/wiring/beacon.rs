//! The public beacon that is mixed into draws, over HTTP.
//!
//! One GET a sale, with the second of its start in the address. A value is what comes with 200, trimmed; everything else
//! means that it is not there yet. The rooms ask until it is; here they are held back to one request in
//! [`ASKED_AGAIN_AFTER`], over all draws. A value that was had is remembered, as long as no more than [`KEPT_MAX`] are.
//! Instances that are answered differently still draw the same: what is written first counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_ports::{Beacon, Source};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};

use crate::config::Settings;
use crate::http::{Health, Probe};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The pause between two requests.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest value, bytes; a longer one is none.
const VALUE_MAX: usize = 4_096;
/// Values that are remembered; beyond, all of them are asked for anew.
const KEPT_MAX: usize = 1_000;

/// See the module's opening.
pub(crate) struct HttpBeacon {
    template: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    asked_at: Option<Instant>,
    values: HashMap<i64, String>,
    /// What the last request came to, unless it was a value.
    trouble: Option<String>,
}

impl HttpBeacon {
    /// `None`: none is configured.
    pub(super) fn of(settings: &Settings) -> Option<Arc<Self>> {
        let template = settings.draw.beacon_url.clone();
        (!template.is_empty()).then(|| Arc::new(Self { template, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under it can fail half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask; an error while it is too early to ask again.
    fn client(&self) -> Result<Client, Source> {
        let mut state = self.state();
        if state.asked_at.is_some_and(|at| at.elapsed() < ASKED_AGAIN_AFTER) {
            return Err(state.trouble.clone().unwrap_or_else(|| "the beacon was asked a moment ago".to_owned()).into());
        }
        state.asked_at = Some(Instant::now());
        if let Some(client) = &state.client {
            return Ok(client.clone());
        }
        crate::crypto::install();
        let client = Client::builder().timeout(ANSWER_MAX).redirect(reqwest::redirect::Policy::none()).build()?;
        state.client = Some(client.clone());
        Ok(client)
    }

    async fn ask(&self, client: &Client, unix: i64) -> Result<String, Source> {
        let mut answer = client.get(self.template.replace("{unix}", &unix.to_string())).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the beacon answers {}", answer.status()).into());
        }
        let mut bytes = Vec::new();
        while let Some(some) = answer.chunk().await? {
            bytes.extend_from_slice(&some);
            if bytes.len() > VALUE_MAX {
                return Err(format!("the beacon's answer is longer than {VALUE_MAX} bytes").into());
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
        let asked = self.ask(&client, unix).await;
        let mut state = self.state();
        match &asked {
            Ok(value) => {
                if state.values.len() >= KEPT_MAX {
                    state.values.clear();
                }
                state.values.insert(unix, value.clone());
                state.trouble = None;
            }
            Err(error) => state.trouble = Some(format!("a draw waits for its beacon: {error}")),
        }
        asked
    }
}

impl Probe for HttpBeacon {
    fn name(&self) -> &'static str {
        "beacon"
    }

    /// Everything but a draw goes on without it.
    fn check(&self) -> BoxFuture<'_, Health> {
        async { self.state().trouble.clone().map_or(Health::Good, Health::Impaired) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A beacon that gives these answers, one a request, and says what it was asked for.
    async fn answering(answers: Vec<String>) -> (Arc<HttpBeacon>, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let template = format!("http://{}/at/{{unix}}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 2_048];
                let read = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Arc::new(HttpBeacon { template, state: Mutex::default() }), served)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn at(unix: i64) -> Timestamp {
        Timestamp::from_timestamp(unix, 999_000_000).unwrap()
    }

    #[tokio::test]
    async fn value_is_the_trimmed_text_of_the_second_and_asked_for_once() {
        let (beacon, served) = answering(vec![answer("200 OK", " 5f3a \n")]).await;
        for _ in 0..2 {
            assert_eq!(beacon.value(at(1_700_000_000)).await.unwrap(), "5f3a");
        }
        assert_eq!(served.await.unwrap(), ["GET /at/1700000000 HTTP/1.1"]);
        assert!(matches!(beacon.check().await, Health::Good));
    }

    #[tokio::test]
    async fn what_is_no_value_is_told_and_not_asked_for_again_at_once() {
        let too_long = "a".repeat(VALUE_MAX + 1);
        for (status, body, told) in [
            ("404 Not Found", "none", "404"),
            ("200 OK", "", "printable"),
            ("200 OK", "a\u{0}b", "printable"),
            ("200 OK", &too_long, "longer"),
        ] {
            let (beacon, served) = answering(vec![answer(status, body)]).await;
            let error = beacon.value(at(7)).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert_eq!(served.await.unwrap().len(), 1);
            let Health::Impaired(detail) = beacon.check().await else { panic!("it is to be seen to") };
            assert!(detail.contains(told), "{detail}");
            // It does not even connect.
            beacon.value(at(7)).await.unwrap_err();
        }
    }
}
