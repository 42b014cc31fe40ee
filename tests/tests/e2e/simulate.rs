//! `boxoffice simulate`: its output, its files, and the options it refuses.

use boxoffice_tests::Process;
use serde_json::Value;
use std::process::{Command, Output};

fn simulate(options: &[&str]) -> Output {
    let small = ["simulate", "--buyers", "800", "--seats", "300", "--arrive-s", "120", "--max-active", "40"];
    Command::new(Process::binary().unwrap()).args(small).args(options).output().unwrap()
}

fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn simulation_is_the_same_again_byte_for_byte() {
    let file = tempfile::tempdir().unwrap();
    let page = |name: &str| file.path().join(name).to_str().unwrap().to_owned();
    let (one, two) = (page("one.html"), page("two.html"));
    let options = ["--seed", "7", "--presale", "0.4", "--lanes", "fans=0.3"];
    let first = printed(simulate(&[&options[..], &["--html", &one]].concat()));
    let second = printed(simulate(&[&options[..], &["--html", &two]].concat()));
    assert_eq!(first, second);
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    assert!(first.contains("rank correlation") && first.contains("fans"), "{first}");
    assert_ne!(first, printed(simulate(&["--seed", "8", "--presale", "0.4", "--lanes", "fans=0.3"])));
}

#[test]
fn simulation_is_printed_as_json() {
    let report: Value = serde_json::from_str(&printed(simulate(&["--json"]))).unwrap();
    assert_eq!((report["schema"].as_u64(), report["world"]["buyers"].as_u64()), (Some(1), Some(800)));
    for field in ["waiting", "seats", "utilisation", "fairness", "eta_while_waiting", "chance", "timeline"] {
        assert!(!report[field].is_null(), "{field}");
    }
    assert!(report["seats"]["sold"].as_u64().unwrap() <= 300);
}

#[test]
fn simulation_refuses_by_the_name_of_the_option() {
    for (option, value) in [("--presale", "1.5"), ("--buyers", "6000000"), ("--rate", "5"), ("--lanes", "a=0.6"), ("--tick-ms", "0")] {
        let also: &[&str] = if option == "--lanes" { &["--lanes", "b=0.6"] } else { &[] };
        let refused = simulate(&[&[option, value], also].concat());
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && errors.contains(option), "{option}: {errors}");
    }
    let help = printed(Command::new(Process::binary().unwrap()).args(["simulate", "--help"]).output().unwrap());
    for option in [
        "--buyers",
        "--arrivals",
        "--patience-s",
        "--conversion",
        "--max-active",
        "--rate",
        "--lanes",
        "--no-shows",
        "--presale",
        "--seed",
        "--html",
    ] {
        assert!(help.contains(option), "{option}");
    }
}
