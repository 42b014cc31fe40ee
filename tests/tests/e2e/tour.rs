//! The tours that the documents print, pasted into a shell as they stand, on a fresh server with its demo season.

use std::path::Path;

use boxoffice_tests::Process;
use serde_json::Value;
use tokio::process::Command;

/// The shell blocks below the heading that speaks of a tour, up to the next heading of its level.
fn script(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines().skip_while(|line| !(line.starts_with("## ") && line.contains("tour"))).skip(1);
    let (mut script, mut inside) = (String::new(), false);
    for line in lines.by_ref().take_while(|line| !line.starts_with("## ")) {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => script.extend([line, "\n"]),
            _ => {}
        }
    }
    assert!(script.contains("API=http://127.0.0.1:8080"), "{document} has no tour");
    script
}

/// What the tour prints, one answer a line.
async fn answers(document: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(&folder.path().join("tour.db"), &["demo.season=true"]).await.unwrap();
    let script = script(document).replace("http://127.0.0.1:8080", &server.base);
    let ran = Command::new("bash").args(["-c", &script]).output().await.unwrap();
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    let printed = String::from_utf8(ran.stdout).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn the_readmes_tour_buys_two_seats_once() {
    let [charge, paid, again] = &answers("README.md").await[..] else { panic!("three answers are printed") };
    assert_eq!(charge["balance"], 300_000);
    assert_eq!(paid["status"], "paid");
    assert_eq!(paid["tickets"].as_array().unwrap().len(), 2);
    assert_eq!(paid, again, "the same key has one effect and the same answer");
}

#[tokio::test]
async fn the_long_tour_goes_from_the_queue_to_the_refund() {
    let answers = answers("crates/app/README.md").await;
    let codes: Vec<_> = answers.iter().filter_map(|answer| answer["code"].as_str()).collect();
    assert_eq!(codes, ["insufficient_balance"], "it is refused once, on purpose: {answers:?}");
    assert!(answers.iter().any(|answer| answer["status"] == "held" && answer["seats"].as_array().unwrap().len() == 2));
    assert!(answers.iter().any(|answer| answer["refund"]["amount"] == 264_000));
    let wallet = answers.last().unwrap();
    assert_eq!(wallet["balance"], 300_000, "everything is back");
}
