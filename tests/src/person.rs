//! A user of a server, over HTTP.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::wait::{PATIENCE, eventually};

/// A client for HTTP. It could speak TLS, so a provider of cryptography must be installed.
pub fn client() -> reqwest::ClientBuilder {
    boxoffice_app::crypto::install();
    reqwest::Client::builder()
}

/// A user with a bearer token and, once queued, a queue token.
#[derive(Clone, Debug)]
pub struct Person {
    http: Client,
    base: String,
    pub id: String,
    pub token: String,
    pub queue_token: Option<String>,
    /// Whether a command that was not decided is sent again, under the same key.
    patient: bool,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// Sends and reads.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.expect("the server answers")
    }

    /// Like [`Answer::to`], but sent again while it is not decided: the answer is `busy`, or a part is away.
    ///
    /// # Panics
    /// When the server does not answer, or there is no decision within [`PATIENCE`].
    pub async fn when_free(request: impl Fn() -> RequestBuilder) -> Self {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = Self::to(request()).await;
            if !["busy", "overloaded", "store_unavailable"].contains(&answer.code()) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "timed out waiting for a decision: {answer:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Like [`Answer::to`], for servers that may be killed before they answer.
    pub async fn try_to(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        Ok(Self { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    /// The value under `path`, such as `dates/0/id`.
    ///
    /// # Panics
    /// When there is none.
    pub fn at(&self, path: &str) -> &Value {
        self.body.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("no {path} in {self:?}"))
    }

    pub fn text(&self, path: &str) -> String {
        self.at(path).as_str().unwrap_or_else(|| panic!("{path} is no text in {self:?}")).to_owned()
    }

    pub fn number(&self, path: &str) -> i64 {
        self.at(path).as_i64().unwrap_or_else(|| panic!("{path} is no number in {self:?}"))
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn is_replay(&self) -> bool {
        self.header("Idempotency-Replayed") == Some("true")
    }

    /// Status and body without the request's own id: what must be equal for equal requests.
    pub fn essence(&self) -> (u16, Value) {
        let mut body = self.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.remove("request_id");
        }
        (self.status, body)
    }

    /// # Panics
    /// When the status is a different one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// # Panics
    /// When it is a different refusal, or none.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code()), (status, code), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("x-request-id"), self.body["request_id"].as_str());
        self
    }
}

impl Person {
    /// The user in `made`, which the server at `base` answered.
    pub fn new(http: Client, base: String, made: &Answer) -> Self {
        Self { http, base, id: made.text("user_id"), token: made.text("access_token"), queue_token: None, patient: false }
    }

    /// A new buyer of the server at `base`.
    ///
    /// # Panics
    /// When the server does not create one.
    pub async fn registered(http: &Client, base: &str) -> Self {
        Self::registered_as(http.clone(), base.to_owned(), json!({ "name": "a buyer" })).await
    }

    /// A new user from the body of `POST /api/v1/dev/users`.
    ///
    /// # Panics
    /// When the server does not create one.
    pub async fn registered_as(http: Client, base: String, body: Value) -> Self {
        let made = Answer::to(http.post(format!("{base}/api/v1/dev/users")).json(&body)).await.expect(201);
        Self::new(http, base, &made)
    }

    /// The same person at the server at `base`.
    #[must_use]
    pub fn at(mut self, base: &str) -> Self {
        base.clone_into(&mut self.base);
        self
    }

    /// The same person, whose commands are sent again until they are decided: a strategy may refuse instead of waiting.
    #[must_use]
    pub fn patiently(mut self) -> Self {
        self.patient = true;
        self
    }

    /// The address of their server.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to `/api/v1` + `path` with this person's tokens.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token);
        match &self.queue_token {
            Some(token) => request.header("Queue-Token", token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(|| self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, key: &str, body: Value) -> Answer {
        self.send(|| self.writing(path, key, &body)).await
    }

    /// Sends a command, with this person's patience.
    pub async fn send(&self, request: impl Fn() -> RequestBuilder) -> Answer {
        if self.patient { Answer::when_free(request).await } else { Answer::to(request()).await }
    }

    pub fn writing(&self, path: &str, key: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).header("Idempotency-Key", key).json(body)
    }

    /// Charges this person's wallet.
    pub async fn charge(&self, amount: i64) {
        self.post("/wallet/charges", &format!("charge-{amount}"), json!({ "amount": amount })).await.expect(201);
    }

    pub async fn balance(&self) -> i64 {
        self.get("/wallet").await.expect(200).number("balance")
    }

    /// The ids of all entries of the wallet, newest first.
    pub async fn entries(&self) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/wallet/entries?limit=200{cursor}")).await.expect(200);
            let items = page.at("items").as_array().into_iter().flatten();
            ids.extend(items.map(|entry| entry["id"].as_str().unwrap_or_default().to_owned()));
            let Some(next) = page.at("next_cursor").as_str() else { return ids };
            cursor = format!("&cursor={next}");
        }
    }

    /// Joins and keeps the token.
    pub async fn join(&mut self, concert: &str) -> Answer {
        let answer = self.post(&format!("/concerts/{concert}/queue"), "unused", Value::Null).await;
        if answer.status < 300 {
            self.queue_token = Some(answer.text("token"));
        }
        answer
    }

    /// Polls the queue and keeps the current token.
    pub async fn status(&mut self) -> Answer {
        let answer = self.get("/queue").await.expect(200);
        self.queue_token = Some(answer.text("token"));
        answer
    }

    /// Joins and waits for the turn.
    pub async fn enter(&mut self, concert: &str) {
        self.join(concert).await;
        self.await_turn().await;
    }

    pub async fn await_turn(&mut self) {
        eventually("the turn", async || (self.status().await.text("status") == "active").then_some(())).await;
    }

    pub async fn hold(&self, key: &str, date: &str, seats: &[u32]) -> Answer {
        self.post("/reservations", key, json!({ "date_id": date, "seats": seats })).await
    }

    pub async fn pay(&self, key: &str, reservation: &str) -> Answer {
        self.post("/payments", key, json!({ "reservation_id": reservation })).await
    }
}
