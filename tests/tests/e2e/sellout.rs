//! The busiest second of a sale, and what several instances know of one another in it.

use boxoffice_tests::{Server, Setup, concert, seats};
use reqwest::Method;

/// Two instances on one PostgreSQL.
async fn two() -> Vec<Server> {
    Setup::default().on_postgres().await.start_many(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concert_imported_at_one_instance_is_found_at_once_at_another() {
    let servers = two().await;
    let (here, there) = (servers[0].operator().await, &servers[1]);
    // Each path is the first that the other instance is asked for of its concert.
    for (at, path) in ["", "/draw", "/dates", "/queue", "/reservations", "/admission", "/stats"].into_iter().enumerate() {
        let document = concert(&servers[0], &format!("concert-{at}"), &[seats(50, 1_000)]);
        let made = here.request(Method::POST, "/admin/concerts").json(&document).send().await.unwrap();
        let made: serde_json::Value = made.json().await.unwrap();
        let (id, date) = (made["id"].as_str().unwrap(), made["dates"][0]["id"].as_str().unwrap());
        let mut buyer = there.person().await;
        match path {
            "/admission" | "/stats" => {
                there.operator().await.get(&format!("/admin/concerts/{id}{path}")).await.expect(200);
            }
            "/queue" => {
                buyer.join(id).await.expect(201);
            }
            "/dates" | "/reservations" => {
                // The turn was had at the first instance; the second has not heard of the concert.
                let mut buyer = servers[0].person().await;
                buyer.enter(id).await;
                let buyer = buyer.at(&there.base);
                if path == "/dates" {
                    buyer.get(&format!("/concerts/{id}/dates")).await.expect(200);
                } else {
                    buyer.hold("hold", date, &[1]).await.expect(201);
                }
            }
            // Nothing is drawn for this one: both instances say so in the same words.
            "/draw" => {
                let answers = [here.get(&format!("/concerts/{id}/draw")).await, buyer.get(&format!("/concerts/{id}/draw")).await];
                assert_eq!(answers[0].status, answers[1].status);
            }
            _ => {
                buyer.get(&format!("/concerts/{id}")).await.expect(200);
            }
        }
    }
    there.person().await.get(&format!("/concerts/{}", "00000000-0000-4000-8000-000000000000")).await.expect_problem(404, "not_found");
    servers[0].audit().await;
}
