//! The report as one page of HTML.
//!
//! Bars are boxes whose width is a share of the widest, so that they follow the width of the page, down to a telephone's.

use maud::{Markup, html};

use super::report::{Report, Run, Via, WorkloadNote};
use super::table::{self, COST, SPEED, latency, thousands};
use super::workload;
use boxoffice_simulate::html::page;

/// The narrowest visible bar, percent of the widest.
const SHARE_MIN: f64 = 0.4;

/// The whole page.
pub fn html(report: &Report) -> String {
    let title = format!("boxoffice: {} strategies compared", report.strategies().len());
    let header = html! {
        (verdict(report))
        (skipped(report))
    };
    let main = html! {
        @for workload in &report.workloads { @if !report.runs.is_empty() { (section(report, workload)) } }
        (overloads(report))
        @if !report.runs.is_empty() { (closing(report)) }
    };
    let footer = html! { @for note in table::NOTES { p { (note) } } };
    page(&title, &table::head(report), header, main, footer)
}

fn verdict(report: &Report) -> Markup {
    let complaints = table::complaints(report);
    html! {
        @if report.is_true() {
            p.verdict { "Every answered effect was found in the store, once, and no invariant is broken." }
        } @else {
            p.verdict.wrong { "The answers and the store differ." }
        }
        @if !complaints.is_empty() {
            details open[!report.is_true()] {
                summary { "Failures and findings (" (complaints.len()) ")" }
                ul { @for line in &complaints { li { (line) } } }
            }
        }
    }
}

fn skipped(report: &Report) -> Markup {
    html! {
        @if !report.skipped.is_empty() {
            details {
                summary { "Not run: " (report.skipped.iter().map(|one| one.strategy).collect::<Vec<_>>().join(", ")) }
                ul { @for one in &report.skipped { li { b { (one.strategy) } ": " (one.reason) } } }
            }
        }
    }
}

fn section(report: &Report, workload: &WorkloadNote) -> Markup {
    let ways: Vec<(Via, Vec<&Run>)> =
        Via::ALL.map(|via| (via, report.of(workload.name, via))).into_iter().filter(|(_, runs)| !runs.is_empty()).collect();
    // One scale for both ways, so that they can be compared by eye.
    let fastest = ways.iter().flat_map(|(_, runs)| runs).map(|run| run.per_s()).fold(0.0, f64::max);
    let slowest_ms = ways.iter().flat_map(|(_, runs)| runs).filter_map(|run| run.latency).map(|latency| latency.p99_ms).fold(0.0, f64::max);
    html! {
        section id=(workload.name) {
            h2 { (workload.name) }
            p { (workload.about) "." }
            div.ways {
                @for (via, runs) in &ways {
                    figure {
                        figcaption { "A second, " (via.title()) }
                        @for run in runs { (bar(&run.title(), run.per_s() / fastest, &thousands(run.per_s()), run.is_true())) }
                    }
                    figure {
                        figcaption { "Latency, " (via.title()) ": p50, p95 and p99 in ms, by a logarithmic scale" }
                        @for run in runs { (tail(run, slowest_ms)) }
                    }
                }
            }
            @for (via, runs) in &ways {
                details {
                    summary { "All figures, " (via.title()) }
                    div.scroll { (figures(runs)) }
                }
            }
        }
    }
}

fn bar(name: &str, share: f64, value: &str, is_true: bool) -> Markup {
    html! {
        div.row role="img" aria-label=(format!("{name}: {value}")) {
            span.name { (name) }
            span.track { span.bar.wrong[!is_true] style=(format!("width:{}", percent(share))) {} }
            span.value { (value) }
        }
    }
}

/// Three marks on one track.
fn tail(run: &Run, slowest_ms: f64) -> Markup {
    let Some(found) = run.latency else { return bar(&run.title(), 0.0, table::NONE, run.is_true()) };
    let marks = [("p50", found.p50_ms), ("p95", found.p95_ms), ("p99", found.p99_ms)];
    let value = marks.map(|(_, ms)| latency(Some(ms))).join(" · ");
    html! {
        div.row role="img" aria-label=(format!("{}: {value}", run.title())) {
            span.name { (run.title()) }
            span.track {
                @for (name, ms) in marks.into_iter().rev() { span class=(format!("bar {name}")) style=(format!("width:{}", percent(decades(ms, slowest_ms)))) {} }
            }
            span.value { (value) }
        }
    }
}

/// The share of a logarithmic scale that ends at `max` and begins at a tenth of a millisecond.
fn decades(ms: f64, max: f64) -> f64 {
    const FROM_MS: f64 = 0.1;
    if max <= FROM_MS { 1.0 } else { (ms.max(FROM_MS) / FROM_MS).ln() / (max / FROM_MS).ln() }
}

fn percent(share: f64) -> String {
    let share = if share.is_finite() { share * 100.0 } else { 0.0 };
    format!("{:.1}%", share.clamp(SHARE_MIN, 100.0))
}

fn figures(runs: &[&Run]) -> Markup {
    let columns = || SPEED.iter().chain(&COST);
    html! {
        table.figures {
            thead { tr { th scope="col" { "strategy" } @for column in columns() { th scope="col" { (column.head) } } } }
            tbody {
                @for run in runs {
                    tr.wrong[!run.is_true()] { th scope="row" { (run.title()) } @for column in columns() { td { ((column.figure)(run)) } } }
                }
            }
        }
    }
}

fn overloads(report: &Report) -> Markup {
    html! {
        @if !report.overloads.is_empty() {
            section #overload {
                h2 { "Ten times more than can be answered" }
                p { (workload::OVERLOAD.about) "." }
                div.scroll {
                    table.figures {
                        thead { tr { th scope="col" { "strategy" } @for column in &table::OVERLOAD { th scope="col" { (column.head) } } } }
                        tbody {
                            @for one in &report.overloads {
                                tr.wrong[!one.is_true()] { th scope="row" { (one.title()) } @for column in &table::OVERLOAD { td { ((column.figure)(one)) } } }
                            }
                        }
                    }
                }
                ul { @for one in &report.overloads { li { (table::overload_verdict(one)) } } }
            }
        }
    }
}

fn closing(report: &Report) -> Markup {
    let heads = table::closing_heads();
    html! {
        section #strategies {
            h2 { "All strategies" }
            p { "Figures of several workloads stand in this order: " (table::legend(report)) "." }
            table.closing {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for summary in report.summaries() {
                        @let row = table::closing_row(report, &summary);
                        tr {
                            th scope="row" { (row[0]) }
                            @for (head, cell) in heads.iter().zip(&row).skip(1) { td data-head=(head) { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::samples::{sample, sample_run};
    use super::*;

    fn page(findings: &[&str]) -> String {
        let findings = findings.iter().map(|finding| (*finding).to_owned()).collect();
        let runs = Via::ALL.map(|via| sample_run("combining", "spread", via)).to_vec();
        let report = sample([runs, vec![Run { findings, ..sample_run("spin", "hold-pay", Via::Process) }]].concat());
        html(&Report { overloads: vec![super::super::report::samples::sample_overload()], ..report })
    }

    #[test]
    fn page_refers_to_nothing_outside() {
        let page = page(&[]).to_lowercase();
        for reference in ["//", "src=", "href=", "url(", "@import", "<script", "<link", "<iframe", "<img"] {
            assert!(!page.contains(reference), "{reference}");
        }
        assert!(page.starts_with("<!doctype html>") && page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
    }

    #[test]
    fn page_shows_every_strategy_workload_and_figure() {
        let page = page(&[]);
        for part in [
            "combining",
            "spin",
            "spread",
            "hold-pay",
            "4,000",
            "2.00 · 30.0 · 30.0",
            "SQL/cmd",
            "when a part dies",
            "Every answered effect was found",
            "kafka, 8 partitions",
            "543,000",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn page_escapes_texts_and_shows_findings() {
        let page = page(&["<b>one</b> is missing"]);
        assert!(page.contains("&lt;b&gt;one&lt;/b&gt; is missing") && page.contains("A &lt;fast&gt; one") && !page.contains("<b>one"));
        assert!(page.contains("class=\"verdict wrong\"") && !page.contains("Every answered effect was found"));
    }

    #[test]
    fn bars_keep_within_their_tracks() {
        for (share, width) in [(0.0, "0.4%"), (0.5, "50.0%"), (1.0, "100.0%"), (7.0, "100.0%"), (f64::NAN, "0.4%")] {
            assert_eq!(percent(share), width);
        }
        assert!(decades(0.0, 100.0) == 0.0 && decades(100.0, 100.0) == 1.0 && decades(1.0, 100.0) < decades(10.0, 100.0));
    }
}
