//! The report as text: tables of the runs for a terminal, and the closing table for a page of documentation.

use boxoffice_simulate::text::count;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::report::{Overload, Report, Run, SHARE_MIN, Summary, Via};

/// Shown instead of a missing figure.
pub(super) const NONE: &str = "–";

/// Machine, versions and settings, a line each.
pub(super) fn head(report: &Report) -> Vec<(&'static str, String)> {
    let machine = &report.machine;
    let processor = machine.processor.as_deref().unwrap_or("unknown processor");
    let memory = machine.memory_mib.map(|mib| format!(", {:.1} GiB", mib / 1_024.0)).unwrap_or_default();
    let versions = report.versions.iter().map(|version| format!("{} {}", version.name, version.version)).collect::<Vec<_>>();
    let conditions = &report.conditions;
    let load = format!(
        "{} commands a run by {} callers on {} instance{} in one process, on {}; at most {} s a run",
        thousands(f64::from(conditions.commands)),
        conditions.callers,
        conditions.instances,
        if conditions.instances == 1 { "" } else { "s" },
        conditions.store,
        conditions.seconds_max,
    );
    let settings = format!(
        "wait_ms {}, lease_ms {}, batch_max {}, lanes {}, backlog_max {}, kafka.partitions 1 and {}, rabbitmq.shards {}, http.workers {}; \
         waiting rooms in {}, without limits",
        conditions.wait_ms,
        conditions.lease_ms,
        conditions.batch_max,
        conditions.lanes,
        conditions.backlog_max,
        conditions.kafka_partitions,
        conditions.rabbitmq_shards,
        conditions.http_workers,
        conditions.rooms,
    );
    vec![
        ("measured", report.measured_at.clone()),
        ("machine", format!("{} cores, {processor}{memory}, {}", machine.cores, machine.system)),
        ("versions", versions.join(", ")),
        ("load", load),
        ("settings", settings),
    ]
}

/// The meaning of the columns.
pub(super) const NOTES: [&str; 4] = [
    "applied: effects found in the store. Away: rejected because too many waited. A second: applied, and for same-seat answered. Per command: all that was sent divided by all commands, refused and failed ones included.",
    "cpu: this process with all instances and callers; PostgreSQL, Redis and the strategy's broker if they run on this machine; broker MiB is its resident memory at the end. Seeding and warming up are not measured.",
    "commits: transactions that wrote. locks: how often a lock was requested; lock ms: the milliseconds until it was acquired or given up, summed over all callers. Tries: how often best seats were chosen for each hold.",
    "*: the time of the run was over before all commands were sent; rates are of those that were.",
];

/// One column: its head, and the figure of a row in it.
pub(super) struct Column<T> {
    pub(super) head: &'static str,
    pub(super) figure: fn(&T) -> String,
}

const fn column<T>(head: &'static str, figure: fn(&T) -> String) -> Column<T> {
    Column { head, figure }
}

/// Outcomes and speed of a run.
pub(super) const SPEED: [Column<Run>; 12] = [
    column("applied", |run| format!("{}{}", thousands(f64::from(run.applied)), if run.complete { "" } else { "*" })),
    column("refused", |run| thousands(f64::from(run.refused))),
    column("away", |run| thousands(f64::from(run.turned_away))),
    column("failed", |run| thousands(f64::from(run.failed))),
    column("seconds", |run| format!("{:.2}", run.seconds)),
    column("a second", |run| thousands(run.per_s())),
    column("p50 ms", |run| latency(run.latency.map(|latency| latency.p50_ms))),
    column("p95 ms", |run| latency(run.latency.map(|latency| latency.p95_ms))),
    column("p99 ms", |run| latency(run.latency.map(|latency| latency.p99_ms))),
    column("live p99", |run| latency(run.live_p99_ms)),
    column("commits", |run| thousands(run.commits as f64)),
    column("true", |run| if run.is_true() { "yes".to_owned() } else { "NO".to_owned() }),
];

/// The cost of a run.
pub(super) const COST: [Column<Run>; 13] = [
    column("retries", |run| thousands(run.retries as f64)),
    column("locks", |run| thousands(run.lock_waits as f64)),
    column("lock ms", |run| thousands(run.lock_wait_ms)),
    column("tries", |run| run.tries_per_grant.map_or(NONE.to_owned(), |tries| format!("{tries:.2}"))),
    column("SQL/cmd", |run| each(run.per_command.statements)),
    column("Redis/cmd", |run| each(Some(run.per_command.redis_commands))),
    column("broker/cmd", |run| each(Some(run.per_command.broker_messages))),
    column("cpu s", |run| seconds(run.cpu.boxoffice_s)),
    column("cpu PG", |run| seconds(run.cpu.postgres_s)),
    column("cpu Redis", |run| seconds(run.cpu.redis_s)),
    column("cpu broker", |run| seconds(run.cpu.broker_s)),
    column("broker MiB", |run| run.broker_memory_mib.map_or(NONE.to_owned(), |mib| format!("{mib:.0}"))),
    column("peak MiB", |run| run.memory_peak_mib.map_or(NONE.to_owned(), |mib| format!("{mib:.0}"))),
];

/// For a terminal: one table for each workload and way, then the findings.
pub fn text(report: &Report) -> String {
    let mut lines: Vec<String> = head(report).into_iter().map(|(name, value)| format!("{name:<9} {value}")).collect();
    lines.extend(report.skipped.iter().map(|skipped| format!("not run   {}: {}", skipped.strategy, one_line(&skipped.reason))));
    for (workload, via) in sections(report) {
        lines.push(format!("\n{}, {}: {}", workload.name, via.title(), workload.about));
        let runs = report.of(workload.name, via);
        lines.extend([&SPEED[..], &COST[..]].map(|columns| block(runs.iter().map(|run| (run.title(), *run)), columns)));
    }
    lines.extend(overloads(report));
    lines.push(String::new());
    lines.extend(NOTES.map(str::to_owned));
    lines.extend(complaints(report));
    lines.join("\n")
}

/// Ten times more than can be answered.
pub(super) const OVERLOAD: [Column<Overload>; 13] = [
    column("peak/s", |one| thousands(one.peak_per_s)),
    column("callers", |one| thousands(f64::from(one.peak_callers))),
    column("beside/s", |one| thousands(one.peak_beside_per_s)),
    column("offered/s", |one| thousands(one.offered_per_s)),
    column("answered/s", |one| thousands(one.answered_per_s)),
    column("of the peak", |one| format!("{:.0} %", one.share_of_peak * 100.0)),
    column("of beside", |one| format!("{:.0} %", one.share_of_peak_beside * 100.0)),
    column("p50 ms", |one| latency(one.latency.map(|latency| latency.p50_ms))),
    column("p99 ms", |one| latency(one.latency.map(|latency| latency.p99_ms))),
    column("wait_ms", |one| thousands(one.wait_ms as f64)),
    column("turned away", |one| thousands(f64::from(one.turned_away))),
    column("failed", |one| thousands(f64::from(one.failed))),
    column("true", |one| if one.is_true() { "yes".to_owned() } else { "NO".to_owned() }),
];

fn overloads(report: &Report) -> Vec<String> {
    if report.overloads.is_empty() {
        return Vec::new();
    }
    let table = block(report.overloads.iter().map(|one| (one.title(), one)), &OVERLOAD);
    let mut lines = vec![format!("\nten times more than can be answered, in process: {}", super::workload::OVERLOAD.about), table];
    lines.extend(report.overloads.iter().map(overload_verdict));
    lines
}

/// The verdict on an overload, in a sentence.
pub(super) fn overload_verdict(one: &Overload) -> String {
    let p99 = latency(one.latency.map(|latency| latency.p99_ms));
    let judged = if one.holds() { "holds" } else { "DOES NOT HOLD" };
    format!(
        "{}: at {:.1} times capacity the accepted ones' p99 is {p99} ms (to stay under wait_ms, {}) and throughput {:.0} % of the peak, {:.0} % of the peak beside as many rejected offers (to stay above {:.0} %): {judged}",
        one.title(),
        one.times(),
        thousands(one.wait_ms as f64),
        one.share_of_peak * 100.0,
        one.share_of_peak_beside * 100.0,
        SHARE_MIN * 100.0,
    )
}

/// One table; each row has its title.
fn block<'a, T: 'a>(rows: impl Iterator<Item = (String, &'a T)>, columns: &[Column<T>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(std::iter::once("strategy").chain(columns.iter().map(|column| column.head)));
    for (title, row) in rows {
        table.add_row(std::iter::once(title).chain(columns.iter().map(|column| (column.figure)(row))));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The workloads and ways that were run.
pub(super) fn sections(report: &Report) -> Vec<(&super::report::WorkloadNote, Via)> {
    let all = report.workloads.iter().flat_map(|workload| Via::ALL.map(|via| (workload, via)));
    all.filter(|(workload, via)| !report.of(workload.name, *via).is_empty()).collect()
}

/// The findings, which make a report untrue, and the first failure of each run.
pub fn complaints(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |place: String, failed: u32, first_failure: &Option<String>, findings: &[String], breaches: &[String]| {
        lines.extend(first_failure.iter().map(|reason| format!("{failed} failed ({place}); the first: {}", one_line(reason))));
        lines.extend(findings.iter().map(|finding| format!("NOT TRUE ({place}): {finding}")));
        lines.extend(breaches.iter().map(|breach| format!("INVARIANT ({place}): {breach}")));
    };
    for run in &report.runs {
        let place = format!("{}, {}, {}", run.title(), run.workload, run.via.title());
        add(place, run.failed, &run.first_failure, &run.findings, &run.breaches);
    }
    for one in &report.overloads {
        add(format!("{}, overload", one.title()), one.failed, &one.first_failure, &one.findings, &one.breaches);
    }
    if !report.is_true() {
        lines.push("The answers and the store differ: see above.".to_owned());
    }
    lines
}

/// The closing table, in Markdown: the figures of each strategy beside its judgement.
pub fn markdown(report: &Report) -> String {
    let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let heads = closing_heads();
    let rule = heads.map(|_| "---".to_owned()).to_vec();
    let mut lines = vec![row(heads.map(str::to_owned).to_vec()), row(rule)];
    for summary in report.summaries() {
        lines.push(row(closing_row(report, &summary).iter().map(|cell| cell.replace('|', "\\|")).collect()));
    }
    let measured: Vec<String> = head(report).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.push(format!("\nFigures of several workloads stand in this order: {}. {}.", legend(report), measured.join(". ")));
    lines.join("\n")
}

/// The order of figures of several workloads in one cell.
pub(super) fn legend(report: &Report) -> String {
    report.workloads.iter().map(|workload| workload.name).collect::<Vec<_>>().join(" / ")
}

pub(super) fn closing_heads() -> [&'static str; 9] {
    [
        "strategy",
        "a second, in process",
        "a second, over HTTP",
        "p99 ms, in process",
        "load on database, Redis and broker",
        "strengths",
        "weaknesses",
        "when a part dies",
        "choose it when",
    ]
}

pub(super) fn closing_row(report: &Report, summary: &Summary<'_>) -> [String; 9] {
    let figures = |via, figure: &dyn Fn(&Run) -> Option<String>| {
        let figures = summary.by_workload(&report.workloads, via, figure).into_iter();
        figures.map(|figure| figure.unwrap_or_else(|| NONE.to_owned())).collect::<Vec<_>>().join(" / ")
    };
    let rate = |run: &Run| Some(thousands(run.per_s()));
    let judged = |text: fn(&super::judgements::Judgement) -> &'static str| summary.judgement.map_or(NONE, text).to_owned();
    [
        summary.title.clone(),
        figures(Via::Process, &rate),
        figures(Via::Http, &rate),
        figures(Via::Process, &|run| run.latency.map(|latencies| latency(Some(latencies.p99_ms)))),
        load(summary),
        judged(|judgement| judgement.strengths),
        judged(|judgement| judgement.weaknesses),
        judged(|judgement| judgement.when_a_part_dies),
        judged(|judgement| judgement.choose_when),
    ]
}

/// The cost of a command for the services, over all runs.
fn load(summary: &Summary<'_>) -> String {
    let range = |what: &str, range: Option<(f64, f64)>| match range {
        None => format!("{what} {NONE}"),
        Some((low, high)) if each(Some(low)) == each(Some(high)) => format!("{what} {}", each(Some(low))),
        Some((low, high)) => format!("{what} {} to {}", each(Some(low)), each(Some(high))),
    };
    let statements = range("SQL", summary.range(|run| run.per_command.statements));
    let redis = range("Redis", summary.range(|run| Some(run.per_command.redis_commands)));
    let commits = range("commits", summary.range(|run| Some(run.commits as f64 / f64::from(run.sent.max(1)))));
    let broker = range("broker", summary.range(|run| Some(run.per_command.broker_messages)));
    format!("a command: {statements}, {commits}, {redis}, {broker}")
}

/// With separators, from a thousand on.
pub(super) fn thousands(figure: f64) -> String {
    let rounded = figure.round() as i64;
    if rounded.abs() < 10 && (figure - figure.round()).abs() > 0.05 {
        return format!("{figure:.1}");
    }
    format!("{}{}", if rounded < 0 { "-" } else { "" }, count(rounded.unsigned_abs()))
}

pub(super) fn latency(ms: Option<f64>) -> String {
    match ms {
        None => NONE.to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2}"),
        Some(ms) if ms < 100.0 => format!("{ms:.1}"),
        Some(ms) => thousands(ms),
    }
}

fn each(figure: Option<f64>) -> String {
    match figure {
        None => NONE.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(figure) if figure < 10.0 => format!("{figure:.2}"),
        Some(figure) => thousands(figure),
    }
}

fn seconds(figure: Option<f64>) -> String {
    figure.map_or(NONE.to_owned(), |seconds| format!("{seconds:.2}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::report::samples::{sample, sample_run};
    use super::*;

    #[test]
    fn figures_are_rounded_for_readers() {
        for (figure, text) in [(0.0, "0"), (0.31, "0.3"), (12.4, "12"), (999.6, "1,000"), (1_234_567.0, "1,234,567"), (-4_200.0, "-4,200")]
        {
            assert_eq!(thousands(figure), text);
        }
        assert_eq!([latency(None), latency(Some(0.123)), latency(Some(45.67)), latency(Some(1_999.9))], ["–", "0.12", "45.7", "2,000"]);
        assert_eq!([each(None), each(Some(0.0)), each(Some(0.004)), each(Some(17.2))], ["–", "0", "0.00", "17"]);
    }

    fn report() -> Report {
        let untrue = Run { findings: vec!["2 charges are missing".to_owned()], complete: false, ..sample_run("spin", "spread", Via::Http) };
        sample(vec![sample_run("combining", "spread", Via::Http), untrue])
    }

    #[test]
    fn terminal_shows_every_figure_and_every_finding() {
        let text = text(&report());
        for column in SPEED.iter().chain(&COST) {
            assert!(text.contains(column.head), "{} in\n{text}", column.head);
        }
        for part in
            ["combining", "2,000*", "4,000", "1,235", "NOT TRUE (spin, spread, over HTTP): 2 charges are missing", "not run   redlock"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("hot-wallet, "), "a workload that was not run has no table:\n{text}");
    }

    #[test]
    fn an_overload_is_a_row_and_a_sentence() {
        use super::super::report::samples::sample_overload;
        let late = Overload {
            share_of_peak: 0.5,
            share_of_peak_beside: 0.5,
            first_failure: Some("no answer".to_owned()),
            failed: 3,
            ..sample_overload()
        };
        let report = Report { overloads: vec![sample_overload(), late], ..sample(Vec::new()) };
        let text = text(&report);
        for part in [
            "kafka, 8 partitions",
            "100,000",
            "95 %",
            "2,90",
            "543,000",
            "throughput 95 % of the peak, 97 % of the peak beside as many rejected offers (to stay above 90 %): holds",
            "50 % of the peak, 50 % of the peak beside as many rejected offers (to stay above 90 %): DOES NOT HOLD",
            "3 failed (kafka, 8 partitions, overload); the first: no answer",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn markdown_is_one_table_with_a_row_for_each_strategy() {
        let markdown = markdown(&report());
        let rows: Vec<_> = markdown.lines().filter(|line| line.starts_with('|')).collect();
        let cells = |row: &str| row.replace("\\|", "").matches('|').count();
        assert_eq!(rows.len(), 4, "{markdown}");
        assert!(rows.iter().all(|row| cells(row) == 10), "{markdown}");
        assert!(rows[2].starts_with("| combining | – / – / – / – / – / – / – | – / – / 4,000 / – / – / – / – |"), "{markdown}");
        assert!(rows[3].contains(super::super::judgements::of("spin").unwrap().choose_when), "{markdown}");
    }
}
