//! The report as one page of HTML, in the look of the strategy lab's.

use super::report::{Calibration, Moment, Report};
use super::text::{CURVES, Curve, count, duration, figures, percent};
use crate::html::page;
use maud::{Markup, html};
use std::fmt::Write as _;

/// The drawing's own units; it is scaled to the page.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 200.0;

/// The whole page.
pub fn html(report: &Report) -> String {
    let world = &report.world;
    let title = format!("boxoffice: {} buyers, {} seats", count(u64::from(world.buyers)), count(u64::from(world.seats)));
    let main = html! {
        section {
            h2 { "Over time" }
            p { (duration(report.timeline.last().map_or(0.0, |moment| moment.at_s))) " from the start of the sale." }
            div.ways { @for (name, of) in CURVES { (chart(name, &report.timeline, of)) } }
        }
        section {
            h2 { "Figures" }
            div.ways {
                @for (title, lines) in figures(report) {
                    figure { figcaption { (title) } dl { @for (name, value) in lines { dt { (name) } dd { (value) } } } }
                }
            }
        }
        section {
            h2 { "What buyers were shown" }
            p { "A range should contain the actual wait four times in five; a chance should come true as often as it states." }
            div.ways {
                figure { figcaption { "Chance of a seat: how often it came true, by the chance shown" } (reliability(report)) }
                (horizons("Ranges shown while waiting", &report.eta_while_waiting))
                (horizons("Ranges shown on joining", &report.eta_on_joining))
            }
        }
    };
    let footer = html! { p { "Simulated with seed " (world.seed) ": the same seed gives the same page." } };
    page(&title, &conditions(report), html! {}, main, footer)
}

fn conditions(report: &Report) -> Vec<(&'static str, String)> {
    let world = &report.world;
    let optional = |value: Option<u32>, unit: &str| value.map_or("none".to_owned(), |value| format!("{} {unit}", count(u64::from(value))));
    let max_active = match world.auto_max_active {
        true => format!("automatic, at most {}", count(u64::from(world.max_active))),
        false => count(u64::from(world.max_active)),
    };
    let lanes = world.lanes.iter().map(|lane| format!("{} {}", lane.name, percent(lane.share))).collect::<Vec<_>>().join(", ");
    let conversion = match world.conversion {
        drift if drift.from == drift.to => percent(drift.from),
        drift => format!("{} at the start, {} at the end", percent(drift.from), percent(drift.to)),
    };
    vec![
        ("arrivals", format!("{:?}, within {}", world.arrivals, duration(f64::from(world.arrive_s))).to_lowercase()),
        ("before the sale", percent(world.presale)),
        ("patience", optional(world.patience_s, "s on average")),
        ("conversion", conversion),
        ("do not come", percent(world.no_shows)),
        ("seats a buyer", world.seats_per_buyer.to_string()),
        ("a turn", format!("{} on average, at most {}", duration(f64::from(world.think_s)), duration(f64::from(world.turn_s)))),
        ("max active", max_active),
        ("rate", world.per_interval.map_or("none".to_owned(), |rate| format!("{} in {} s", count(u64::from(rate.count)), rate.seconds))),
        ("capacity", world.capacity.map_or("any number".to_owned(), |most| format!("{} at once", count(u64::from(most))))),
        ("lanes", if lanes.is_empty() { "none".to_owned() } else { lanes }),
    ]
}

fn chart(name: &str, timeline: &[Moment], of: Curve) -> Markup {
    let most = timeline.iter().map(of).max().unwrap_or(0);
    let end = timeline.last().map_or(1.0, |moment| moment.at_s.max(1.0));
    let points = timeline.iter().map(|moment| (moment.at_s / end, of(moment) as f64 / most.max(1) as f64));
    html! {
        figure {
            figcaption { (name) ", at most " (count(most)) }
            (drawing(&format!("{name}, at most {}", count(most)), &[("", path(points))]))
        }
    }
}

fn drawing(label: &str, paths: &[(&str, String)]) -> Markup {
    html! {
        svg.chart role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" {
            @for (class, path) in paths { path class=(class) d=(path) {} }
        }
    }
}

/// A path through points of the unit square.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { "M" } else { "L" }, x * WIDTH, (1.0 - y) * HEIGHT);
    }
    path
}

fn reliability(report: &Report) -> Markup {
    let came = path(report.chance.iter().map(|class| (class.told, class.came_true)));
    let meant = path([(0.0, 0.0), (1.0, 1.0)].into_iter());
    html! {
        @if report.chance.is_empty() { p { "No buyer was shown a chance." } } @else {
            (drawing("Chance shown and come true", &[("meant", meant), ("", came)]))
            table.figures {
                thead { tr { th scope="col" { "shown" } th scope="col" { "came true" } th scope="col" { "answers" } } }
                tbody {
                    @for class in &report.chance {
                        tr { th scope="row" { (percent(class.told)) } td { (percent(class.came_true)) } td { (count(class.answers)) } }
                    }
                }
            }
        }
    }
}

fn horizons(title: &str, of: &Calibration) -> Markup {
    html! {
        figure {
            figcaption { (title) }
            table.figures {
                thead { tr { @for head in ["range", "right", "came sooner", "came later", "judged"] { th scope="col" { (head) } } } }
                tbody {
                    @for one in &of.horizons {
                        tr {
                            th scope="row" { (one.horizon) }
                            td { (one.right.map_or("–".to_owned(), percent)) }
                            td { (count(one.sooner)) }
                            td { (count(one.later)) }
                            td { (count(one.judged)) }
                        }
                    }
                }
            }
        }
    }
}
