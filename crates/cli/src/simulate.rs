//! `simulate`: admission policies with a simulated crowd.
//!
//! The report goes to standard output and depends on the options alone; how long it took goes to standard error.

use crate::output::print;
use anyhow::Context as _;
use boxoffice_domain::PerInterval;
use boxoffice_domain::admission::MAX_ACTIVE_MAX;
use boxoffice_simulate::world::{Arrivals, Drift, LaneShare, Pause, World};
use boxoffice_simulate::{page, simulate, text};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Tries admission policies on a simulated crowd, with the server's own rules and without a server
///
/// Prints how long buyers wait, how well places and seats are used, how fair the order is, and how often the ranges and
/// chances shown to buyers come true. The same options with the same seed give the same report, byte for byte.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How many buyers arrive
    #[arg(long, default_value_t = 100_000, value_name = "COUNT")]
    buyers: u32,
    /// How they arrive
    #[arg(long, value_enum, default_value = "flash")]
    arrivals: Arrivals,
    /// For how long they arrive, from the start of the sale, seconds
    #[arg(long, default_value_t = 1_800, value_name = "SECONDS")]
    arrive_s: u32,
    /// The share that arrives before the sale and is drawn when it starts
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    presale: f64,
    /// The mean time after which a waiting buyer gives up, seconds; or never
    #[arg(long, default_value = "3600", value_parser = patience, value_name = "SECONDS|never")]
    patience_s: Patience,
    /// The share of turns that end with a payment; 0.8..0.4 changes evenly until the last seat is sold
    #[arg(long, default_value = "0.6", value_parser = drift, value_name = "SHARE[..SHARE]")]
    conversion: Drift,
    /// The share of buyers that do not come to their turn
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    no_shows: f64,
    #[arg(long, default_value_t = 20_000, value_name = "COUNT")]
    seats: u32,
    /// How many seats one buyer takes
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    seats_per_buyer: u32,
    /// The mean time from the choice of seats to paying, or leaving, seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    think_s: u32,
    /// The longest turn, seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    turn_s: u32,
    /// How many buyers may be active at once; auto finds the number
    #[arg(long, default_value = "1000", value_parser = max_active, value_name = "COUNT|auto")]
    max_active: MaxActive,
    /// The most turns that begin in any window of so many seconds, as 500/10
    #[arg(long, value_parser = rate, value_name = "COUNT/SECONDS")]
    rate: Option<PerInterval>,
    /// Never more active buyers than seats that are still obtainable
    #[arg(long)]
    stock_linked: bool,
    /// How many shoppers the servers can carry at once; admission adapts to their health [default: any number]
    #[arg(long, value_name = "COUNT")]
    capacity: Option<u32>,
    /// Lanes with their share of the turns and of the buyers, as fans=0.3,partners=0.1
    #[arg(long, value_delimiter = ',', value_parser = lane, value_name = "NAME=SHARE")]
    lanes: Vec<LaneShare>,
    /// An operator's pause, in seconds after the start, as 300+60
    #[arg(long, value_parser = pause, value_name = "AT+FOR")]
    pause: Option<Pause>,
    /// How often inputs are applied to the room, milliseconds
    #[arg(long, default_value_t = 250, value_name = "MS")]
    tick_ms: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the report as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Patience(Option<u32>);

#[derive(Clone, Copy, Debug)]
enum MaxActive {
    Auto,
    Most(u32),
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number in the allowed range"))
}

fn patience(text: &str) -> Result<Patience, String> {
    if text == "never" { Ok(Patience(None)) } else { number(text).map(|mean_s| Patience(Some(mean_s))) }
}

fn max_active(text: &str) -> Result<MaxActive, String> {
    if text == "auto" { Ok(MaxActive::Auto) } else { number(text).map(MaxActive::Most) }
}

fn drift(text: &str) -> Result<Drift, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    Ok(Drift { from: number(from)?, to: number(to)? })
}

fn rate(text: &str) -> Result<PerInterval, String> {
    let (count, seconds) = text.split_once('/').ok_or("write it as COUNT/SECONDS")?;
    Ok(PerInterval { count: number(count)?, seconds: number(seconds)? })
}

fn pause(text: &str) -> Result<Pause, String> {
    let (at_s, for_s) = text.split_once('+').ok_or("write it as AT+FOR")?;
    Ok(Pause { at_s: number(at_s)?, for_s: number(for_s)? })
}

fn lane(text: &str) -> Result<LaneShare, String> {
    let (name, share) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as NAME=SHARE")?;
    Ok(LaneShare { name: name.to_owned(), share: number(share)? })
}

impl Options {
    fn world(&self) -> World {
        let (max_active, auto_max_active) = match self.max_active {
            MaxActive::Auto => (MAX_ACTIVE_MAX, true),
            MaxActive::Most(most) => (most, false),
        };
        World {
            seed: self.seed,
            buyers: self.buyers,
            arrivals: self.arrivals,
            arrive_s: self.arrive_s,
            presale: self.presale,
            patience_s: self.patience_s.0,
            conversion: self.conversion,
            no_shows: self.no_shows,
            seats: self.seats,
            seats_per_buyer: self.seats_per_buyer,
            think_s: self.think_s,
            turn_s: self.turn_s,
            max_active,
            auto_max_active,
            per_interval: self.rate,
            stock_linked: self.stock_linked,
            capacity: self.capacity,
            lanes: self.lanes.clone(),
            pause: self.pause,
            tick_ms: self.tick_ms,
        }
    }
}

pub(super) fn run(options: &Options, json: bool) -> anyhow::Result<ExitCode> {
    let world = options.world();
    if let Some(fault) = world.fault() {
        eprintln!("boxoffice: {fault}");
        return Ok(ExitCode::from(2));
    }
    const STEPS: f64 = 1_000.0;
    let style = ProgressStyle::with_template("{bar:30} {percent} % ({elapsed})");
    let bar = ProgressBar::new(STEPS as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let began = Instant::now();
    let report = simulate(&world, &mut |through| bar.set_position((through * STEPS) as u64));
    bar.finish_and_clear();
    eprintln!("simulated in {:.1} s{}", began.elapsed().as_secs_f64(), memory().unwrap_or_default());
    if let Some(path) = &options.html {
        std::fs::write(path, page::html(&report) + "\n").with_context(|| format!("--html: {}", path.display()))?;
    }
    print(&if json { serde_json::to_string_pretty(&report)? } else { text::text(&report) })?;
    Ok(ExitCode::SUCCESS)
}

/// The peak memory of this process, where the system reports it.
fn memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(format!(", {:.0} MiB of memory at most", kib / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Task};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<World, String> {
        match Arguments::try_parse_from(line.split(' ')) {
            Ok(Arguments { command: Some(Task::Simulate(options)), .. }) => Ok(options.world()),
            Ok(_) => Err("another subcommand".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn without_options_it_is_the_sample() {
        assert_eq!(parse("boxoffice simulate"), Ok(World::sample(1)));
    }

    #[test]
    fn options_are_taken_as_they_are_written() {
        let line = "boxoffice simulate --patience-s never --conversion 0.8..0.4 --max-active auto --rate 500/10 --lanes fans=0.3,press=0.1 --pause 300+60 --arrivals bots";
        let world = parse(line).unwrap();
        assert_eq!((world.patience_s, world.conversion), (None, Drift { from: 0.8, to: 0.4 }));
        assert_eq!((world.max_active, world.auto_max_active), (MAX_ACTIVE_MAX, true));
        assert_eq!(world.per_interval, Some(PerInterval { count: 500, seconds: 10 }));
        assert_eq!(world.lanes.iter().map(|lane| (lane.name.as_str(), lane.share)).collect::<Vec<_>>(), [("fans", 0.3), ("press", 0.1)]);
        assert_eq!((world.pause, world.arrivals), (Some(Pause { at_s: 300, for_s: 60 }), Arrivals::Bots));
        assert_eq!(world.fault(), None);
    }

    #[test]
    fn an_unreadable_value_names_its_option() {
        for (option, value) in [
            ("--max-active", "many"),
            ("--rate", "5"),
            ("--rate", "5/x"),
            ("--lanes", "fans"),
            ("--pause", "5"),
            ("--conversion", "0.5..x"),
            ("--patience-s", "long"),
            ("--arrivals", "parade"),
        ] {
            let refused = parse(&format!("boxoffice simulate {option} {value}")).unwrap_err();
            assert!(refused.contains(option), "{option}: {refused}");
        }
    }
}
