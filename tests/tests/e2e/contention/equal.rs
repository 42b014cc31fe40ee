//! The same request several times at the same moment.

use super::{Site, nothing};
use boxoffice_tests::{Answer, Person, at_once, seats};
use serde_json::{Value, json};

/// A request that can be sent several times, to any instance.
struct Write<'a> {
    site: &'a Site,
    owner: &'a Person,
    path: String,
    key: String,
    body: Value,
}

impl Write<'_> {
    /// Sends it `equal` times at once, then once more: one effect, equal answers.
    async fn times(&self, equal: usize, status: u16) -> Answer {
        let what = format!("{} {}", self.path, self.body);
        let copies = (0..equal).map(|n| {
            let (owner, path, key, body) = (self.site.at(n, self.owner), self.path.clone(), self.key.clone(), self.body.clone());
            async move { owner.post(&path, &key, body).await }
        });
        let answers = at_once(copies).await;
        let later = Answer::to(self.site.at(equal, self.owner).writing(&self.path, &self.key, &self.body)).await;
        assert!(later.is_replay(), "{what}: {later:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1, "{what}: one of {equal} is the first");
        for answer in answers.iter().chain([&later]) {
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            assert_eq!(answer.essence(), later.essence(), "{what}");
        }
        later
    }
}

/// 2, 3, 10 and 100 equal requests for each kind of command, succeeding and failing, spread over the instances (I3).
pub(super) async fn equal_requests_have_one_effect_and_equal_answers(site: &Site) {
    let (concert, date) = site.one_date(seats(200, 1_000)).await;
    let (mut rival, mut owner) = (site.person().await, site.person().await);
    rival.enter(&concert).await;
    owner.enter(&concert).await;
    rival.hold("r", &date, &[200]).await.expect(201);
    for (n, equal) in [2, 3, 10, 100].into_iter().enumerate() {
        let write = |path: &str, body: Value| {
            let key = format!("{path}-{n}-{body}").replace(' ', "");
            Write { site, owner: &owner, path: path.to_owned(), key, body }
        };
        let before = owner.balance().await;
        write("/wallet/uses", json!({ "amount": 90_000_000 })).times(equal, 402).await;
        write("/wallet/charges", json!({ "amount": 5_000 })).times(equal, 201).await;
        assert_eq!(owner.balance().await, before + 5_000);
        let held = write("/reservations", json!({ "date_id": date, "seats": [n + 1] })).times(equal, 201).await.text("id");
        write("/reservations", json!({ "date_id": date, "seats": [200] })).times(equal, 409).await;
        write(&format!("/reservations/{held}/extend"), nothing()).times(equal, 200).await;
        let paid = write("/payments", json!({ "reservation_id": held })).times(equal, 201).await.text("id");
        assert_eq!(owner.balance().await, before + 4_000);
        write(&format!("/payments/{paid}/refund"), nothing()).times(equal, 200).await;
        assert_eq!(owner.balance().await, before + 5_000);
        owner.enter(&concert).await;
    }
}
