use super::*;
use boxoffice_domain::{Actor, Command, Decision, Fingerprint, FreshIds, Rejection};
use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn at(seconds: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn logged() -> LoggedCommand {
    LoggedCommand {
        request: Request {
            command_id: CommandId(id(1)),
            actor: Actor::User(id(2).into()),
            fingerprint: Some(Fingerprint([7; 32])),
            fresh: FreshIds { subject: id(3), entry: id(4), points: [id(5), id(6)] },
            command: Command::UseWallet { user: id(2).into(), amount: 12, memo: Some("poster".to_owned()) },
        },
        reply_to: InstanceId(id(9)),
        accepted_at: at(1_000),
    }
}

/// Version 1 as it was first written. This test keeps it readable.
fn first_command() -> String {
    let sevens = vec!["7"; 32].join(",");
    format!(
        r#"{{"v":1,"request":{{"command_id":"00000000-0000-0000-0000-000000000001",
        "actor":{{"user":"00000000-0000-0000-0000-000000000002"}},"fingerprint":[{sevens}],
        "fresh":{{"subject":"00000000-0000-0000-0000-000000000003","entry":"00000000-0000-0000-0000-000000000004",
        "points":["00000000-0000-0000-0000-000000000005","00000000-0000-0000-0000-000000000006"]}},
        "command":{{"command":"use_wallet","user":"00000000-0000-0000-0000-000000000002","amount":12,"memo":"poster"}}}},
        "reply_to":"00000000-0000-0000-0000-000000000009","accepted_at":"1970-01-01T00:16:40Z","added_since":[1]}}"#
    )
}

#[test]
fn old_messages_still_parse() {
    assert_eq!(parse_command(first_command().as_bytes()).unwrap(), logged());
    let answers = r#"{"v":1,"answers":[
        {"command":"00000000-0000-0000-0000-000000000001","reply":{"decision":{"refused":{"code":"insufficient_balance"}},
         "decided_at":"1970-01-01T00:16:40Z","replayed":false}},
        {"command":"00000000-0000-0000-0000-000000000002","dead":"no such column"}]}"#;
    let reply = Reply { decision: Decision::Refused(Rejection::InsufficientBalance), decided_at: at(1_000), replayed: false };
    let wanted = [
        Answer { command: CommandId(id(1)), reply: Ok(reply) },
        Answer { command: CommandId(id(2)), reply: Err("no such column".to_owned()) },
    ];
    assert_eq!(parse_answers(answers.as_bytes()).unwrap(), wanted);
    assert_eq!(parse_answers(&super::answers(&wanted).unwrap()).unwrap(), wanted);
}

#[test]
fn an_answer_without_a_reply_or_a_reason_is_unreadable() {
    let bytes = r#"{"v":1,"answers":[{"command":"00000000-0000-0000-0000-000000000001"}]}"#;
    assert!(matches!(parse_answers(bytes.as_bytes()), Err(Unreadable::Json(_))));
}

#[test]
fn commands_are_parsed_as_they_were_written() {
    let bytes = command(&logged()).unwrap();
    assert_eq!(parse_command(&bytes).unwrap(), logged());
}

#[test]
fn bytes_that_are_no_message_are_unreadable() {
    for bytes in ["", "{}", "null", "{\"v\":1}", "{\"v\":\"1\"}", "\u{0}", "[1]"] {
        assert!(matches!(parse_command(bytes.as_bytes()), Err(Unreadable::Json(_))), "{bytes}");
        assert!(matches!(parse_answers(bytes.as_bytes()), Err(Unreadable::Json(_))), "{bytes}");
    }
    assert!(matches!(parse_command(b"{\"v\":2,\"anything\":true}"), Err(Unreadable::Version(2))));
}

fn parsed(event: Event) -> (Published, Value) {
    let row = OutboxRow { shard: 3, id: 77, event, occurred_at: at(1_000) };
    let published = published(&row).unwrap();
    let body = serde_json::from_slice(&published.body).unwrap();
    (published, body)
}

#[test]
fn events_are_cloud_events() {
    let seat = Event::Seat { change: boxoffice_domain::ReservationChange::Held, date: id(1).into(), seat: 12, reservation: id(2).into() };
    let (published, body) = parsed(seat);
    let (date, reservation) = (id(1), id(2));
    assert_eq!((published.id.as_str(), published.kind, published.key), ("3-77", "reservation.held", format!("{date}/12")));
    assert_eq!(
        body,
        json!({
            "specversion": "1.0", "id": "3-77", "source": "/boxoffice", "type": "reservation.held",
            "subject": format!("dates/{date}/seats/12"), "time": "1970-01-01T00:16:40Z", "datacontenttype": "application/json",
            "schemaversion": 1, "partitionkey": format!("{date}/12"),
            "data": { "event": "seat", "change": "held", "date": date, "seat": 12, "reservation": reservation },
        })
    );
}

#[test]
fn events_that_must_stay_in_order_have_one_key() {
    let user = id(5);
    let charged = Event::WalletCharged { user: user.into(), entry: id(1).into(), amount: 5, balance: 5 };
    let used = Event::WalletUsed { user: user.into(), entry: id(2).into(), amount: 5, balance: 0 };
    assert_eq!((parsed(charged).0.key, parsed(used).0.key), (user.to_string(), user.to_string()));
}
