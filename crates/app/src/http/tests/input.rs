//! Bounds of parameters and bodies: as documented, each refusal naming its field.

use boxoffice_ports::MockWaitingRoom;

use super::*;

/// A room where the entry of every token has its turn.
fn a_turn_for_each_entry() -> MockWaitingRoom {
    let place = |entry| Place {
        entry,
        user: Uuid::from_u128(1).into(),
        lane: Lane(0),
        status: QueueStatus::Active,
        arrival: 1,
        ahead: Some(0),
        active_until: None,
        eta: None,
        chance: None,
        sale_starts_at: None,
        draw: None,
    };
    let mut room = MockWaitingRoom::new();
    room.expect_place().returning(move |_, entry| Ok(Some(place(entry))));
    room.expect_touch().returning(move |_, entry| Ok(Some(place(entry))));
    room.expect_draw().returning(|_| Ok(None));
    room
}

/// The fields a 400 names.
fn at_fault(answer: &Answer) -> Vec<&str> {
    let errors = if answer.status == 400 { answer.body["errors"].as_array() } else { None };
    errors.into_iter().flatten().map(|error| error["field"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn each_bound_of_the_document_is_accepted_and_one_beyond_is_refused() {
    let app = app_with(|parts| parts.room = Arc::new(a_turn_for_each_entry())).await;
    let document = serde_json::to_value(openapi()).unwrap();
    let (mut limits, mut keys) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        let uri = path.replace("{id}", &Uuid::from_u128(3).to_string());
        for (method, operation) in item.as_object().unwrap() {
            let send = async |query: &str, key: &str| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let request = request(method, &format!("{uri}{query}")).insert_header(bearer(&app, 1, true));
                let request = request.insert_header(queue_token(&app, 1, 3, Some(60))).insert_header(("Content-Type", "application/json"));
                send(&app, request.insert_header(("Idempotency-Key", key)).set_payload("{}")).await
            };
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                match parameter["name"].as_str().unwrap() {
                    "limit" => {
                        limits += 1;
                        let (low, high) = (schema["minimum"].as_u64().unwrap(), schema["maximum"].as_u64().unwrap());
                        for (limit, faults) in [(low, vec![]), (high, vec![]), (low - 1, vec!["limit"]), (high + 1, vec!["limit"])] {
                            let answer = send(&format!("?limit={limit}"), "k").await;
                            assert_eq!(at_fault(&answer), faults, "{method} {path} {limit}: {}", answer.body);
                        }
                    }
                    "Idempotency-Key" => {
                        keys += 1;
                        let longest = schema["maxLength"].as_u64().unwrap() as usize - 2;
                        let (long, beyond) = ("k".repeat(longest), "k".repeat(longest + 1));
                        for (key, is_refused) in
                            [("k", false), (long.as_str(), false), (&format!("\"{long}\""), false), ("\"\"", true), (&beyond, true)]
                        {
                            let answer = send("", key).await;
                            assert_eq!(at_fault(&answer) == ["Idempotency-Key"], is_refused, "{method} {path} {key}: {}", answer.body);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    let table = routes::table();
    let with = |needs: fn(&routes::Needs) -> bool| table.iter().filter(|endpoint| endpoint.documented && needs(&endpoint.needs)).count();
    assert_eq!((limits, keys), (with(|needs| needs.paged), with(|needs| needs.idempotency_key)));
    assert!(limits > 0 && keys > 0);
}

#[actix_web::test]
async fn text_that_a_store_cannot_hold_is_refused_with_its_field() {
    let app = app_with(|parts| parts.room = Arc::new(a_turn_for_each_entry())).await;
    let post = |path: &str, body: Value| {
        request(Method::POST, path)
            .insert_header(bearer(&app, 1, true))
            .insert_header(queue_token(&app, 1, 3, Some(60)))
            .insert_header(("Idempotency-Key", "k"))
            .insert_header(("Content-Type", "application/json"))
            .set_payload(body.to_string())
    };
    for wrong in ["a\0b", "a\nb", "\u{2028}", &"é".repeat(201)] {
        for (path, body, field) in [
            ("/api/v1/wallet/uses", json!({"amount": 1, "memo": wrong}), "memo"),
            ("/api/v1/dev/users", json!({"name": wrong}), "name"),
            ("/api/v1/dev/users", json!({"name": "Ann", "lane": wrong}), "lane"),
            ("/api/v1/reservations", json!({"date_id": Uuid::from_u128(5), "best": {"count": 1, "grade": wrong}}), "best.grade"),
        ] {
            let answer = send(&app, post(path, body)).await;
            assert_eq!(at_fault(&answer), [field], "{path} {wrong:?}: {}", answer.body);
        }
        let concert = json!({"key": wrong, "name": wrong, "venue": wrong, "time_zone": wrong, "dates": [
            {"key": wrong, "starts_at": "2027-03-05T10:00:00Z", "booking_opens_at": "2027-01-10T11:00:00Z",
             "booking_closes_at": "2027-03-05T09:00:00Z",
             "seats": [{"from": 1, "to": 2, "grade": wrong, "price": 1, "section": wrong, "row": wrong}]}]});
        let answer = send(&app, post("/api/v1/admin/concerts", concert)).await;
        let seats = "dates[0].seats[0]";
        let fields = ["key", "name", "venue", "time_zone", "dates[0].key"].map(str::to_owned).into_iter();
        let fields: Vec<_> = fields.chain(["grade", "section", "row"].map(|name| format!("{seats}.{name}"))).collect();
        assert_eq!(at_fault(&answer), fields, "{wrong:?}: {}", answer.body);
    }
}

#[actix_web::test]
async fn a_member_named_twice_is_refused_in_a_concert_document() {
    let app = app().await;
    let body = r#"{"key": "k", "name": "N", "venue": "V", "dates": [{"seats": [{"price": 1000, "price": 1}]}]}"#;
    let import = request(Method::POST, "/api/v1/admin/concerts").insert_header(bearer(&app, 1, true));
    let answer = send(&app, import.insert_header(("Content-Type", "application/json")).set_payload(body)).await;
    assert_eq!(at_fault(&answer), ["dates[0].seats[0].price"], "{}", answer.body);
}
