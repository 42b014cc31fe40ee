//! The report for a terminal.

use super::report::{Calibration, Moment, Report};
use std::fmt::Write as _;

/// The width of the curves.
const COLUMNS: usize = 60;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const NONE: &str = "–";

/// A name with its figure.
pub(super) type Line = (&'static str, String);

/// Every figure, by group.
pub(super) fn figures(report: &Report) -> Vec<(&'static str, Vec<Line>)> {
    let Report { world, buyers, seats, utilisation, .. } = report;
    let seconds = |value: Option<f64>| value.map_or(NONE.to_owned(), duration);
    let share = |value: Option<f64>| value.map_or(NONE.to_owned(), percent);
    let waits = |of: fn(&super::report::Waits) -> f64| seconds(report.waiting.as_ref().map(of));
    let unsold = format!("{} minutes a seat, {} minutes free while buyers waited", decimal(seats.unsold_min), decimal(seats.idle_min));
    let mut fairness = report.fairness.map_or(NONE.to_owned(), |rank| format!("{rank:.4}"));
    for (lane, rank) in std::iter::once("general").chain(world.lanes.iter().map(|lane| lane.name.as_str())).zip(&report.fairness_by_lane) {
        if !world.lanes.is_empty() {
            let _ = write!(fairness, " · {lane} {}", rank.map_or(NONE.to_owned(), |rank| format!("{rank:.4}")));
        }
    }
    vec![
        (
            "Buyers",
            vec![
                ("came", count(buyers.came)),
                ("had a turn", count(buyers.had_a_turn)),
                ("bought", count(buyers.bought)),
                ("gave up waiting", count(buyers.gave_up)),
                ("sent away", count(buyers.sent_away)),
                ("did not come", count(buyers.no_shows)),
                ("found nothing free", count(buyers.found_nothing)),
            ],
        ),
        (
            "Waiting, until the turn",
            vec![
                ("median", waits(|waits| waits.median_s)),
                ("p90", waits(|waits| waits.p90_s)),
                ("p99", waits(|waits| waits.p99_s)),
                ("mean", waits(|waits| waits.mean_s)),
            ],
        ),
        (
            "Seats",
            vec![
                ("sold", format!("{} of {}", count(seats.sold), count(u64::from(world.seats)))),
                ("sold out after", seconds(seats.sold_out_after_s)),
                ("unsold", unsold),
            ],
        ),
        (
            "Utilisation, while buyers waited",
            vec![
                ("of max active", share(utilisation.of_max_active)),
                ("of the rate", share(utilisation.of_rate)),
                ("most active", format!("{} of {}", count(utilisation.active_most), count(utilisation.max_active_most))),
            ],
        ),
        ("Fairness", vec![("rank correlation", fairness)]),
        (
            "Ranges shown (target: 80 % right)",
            vec![
                ("as the room measures", share(report.eta_by_the_room)),
                ("while waiting", calibration(&report.eta_while_waiting)),
                ("on joining", calibration(&report.eta_on_joining)),
            ],
        ),
    ]
}

fn calibration(of: &Calibration) -> String {
    let width = of.width_s.map_or(NONE.to_owned(), duration);
    of.right.map_or(NONE.to_owned(), |right| format!("{} of {}, {width} wide on average", percent(right), count(of.judged)))
}

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for (title, lines) in figures(report) {
        let _ = writeln!(text, "{title}");
        for (name, value) in lines {
            let _ = writeln!(text, "  {name:<20} {value}");
        }
    }
    if !report.chance.is_empty() {
        let _ = writeln!(text, "Chance of a seat");
        for class in &report.chance {
            let (shown, came_true) = (percent(class.told), percent(class.came_true));
            let _ = writeln!(text, "  shown {shown:>7}       came true {came_true:>7} of {}", count(class.answers));
        }
    }
    let _ = writeln!(text, "Over {}", duration(report.timeline.last().map_or(0.0, |moment| moment.at_s)));
    for (name, of) in CURVES {
        let most = report.timeline.iter().map(of).max().unwrap_or(0);
        let _ = writeln!(text, "  {name:<20} {} {}", curve(&report.timeline, of, most), count(most));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The figure of a moment that a curve shows.
pub(super) type Curve = fn(&Moment) -> u64;

/// The curves over time.
pub(super) const CURVES: [(&str, Curve); 3] =
    [("waiting", |moment| moment.waiting), ("active", |moment| moment.active), ("sold", |moment| moment.sold)];

fn curve(timeline: &[Moment], of: Curve, most: u64) -> String {
    let columns = COLUMNS.min(timeline.len());
    let level = |at: usize| {
        let value = of(&timeline[at * timeline.len() / columns.max(1)]);
        LEVELS[(value * (LEVELS.len() as u64 - 1) / most.max(1)) as usize]
    };
    (0..columns).map(level).collect()
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn decimal(value: f64) -> String {
    format!("{value:.1}")
}

pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
    }
}

/// With commas between thousands.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
