//! The plan of a comparison, and its bounds.

use std::time::Duration;

use boxoffice_app::config::{Settings, StoreBackend, StrategyName};

use crate::entrant::Entrant;
use crate::error::LabError;
use crate::report::{Run, Skipped, Via};
use crate::run::Size;
use crate::site;
use crate::workload::{CALLERS_MAX, COMMANDS_MAX, Workload};

/// Default number of instances on a store that allows several.
const INSTANCES: u32 = 2;
/// The most instances: each brings connections and threads of its own.
pub const INSTANCES_MAX: u32 = 16;
/// The longest time in which a run may begin commands, seconds.
pub const SECONDS_MAX: u32 = 600;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `None`: every strategy whose services are configured.
    pub strategies: Option<Vec<StrategyName>>,
    pub workloads: Vec<Workload>,
    pub ways: Vec<Via>,
    /// Commands of each run.
    pub commands: u32,
    pub callers: u32,
    /// `None`: as many as suit the store.
    pub instances: Option<u32>,
    /// After this long a run begins no more commands.
    pub seconds: u32,
    /// Offers ten times more than each strategy can answer, instead of the workloads.
    pub overload: bool,
    /// Keeps waiting rooms where the configuration says, and not in each instance's memory.
    pub rooms: bool,
}

/// Follows a comparison.
pub trait Progress: Send + Sync {
    /// `at` of `of` runs begins.
    fn begins(&self, at: usize, of: usize, strategy: &str, workload: &str, via: Via);
    fn ended(&self, run: &Run);
    fn skipped(&self, skipped: &Skipped);
}

impl Plan {
    pub(crate) fn size(&self) -> Size {
        Size { commands: self.commands, callers: self.callers, time: Duration::from_secs(u64::from(self.seconds)) }
    }

    pub(crate) fn check(&self) -> Result<(), LabError> {
        let instances = self.instances.unwrap_or(1);
        for (what, value, max) in [
            ("--commands", self.commands, COMMANDS_MAX),
            ("--callers", self.callers, CALLERS_MAX),
            ("--instances", instances, INSTANCES_MAX),
            ("--seconds", self.seconds, SECONDS_MAX),
        ] {
            if !(1..=max).contains(&value) {
                return Err(LabError::Range { what, max });
            }
        }
        Ok(())
    }

    /// The number of instances on a store.
    pub(crate) fn instances(&self, store: StoreBackend) -> Result<u32, LabError> {
        match (store, self.instances) {
            (StoreBackend::Postgres, count) => Ok(count.unwrap_or(INSTANCES)),
            (_, None | Some(1)) => Ok(1),
            (store, Some(_)) => Err(LabError::OneInstance { store: store.name() }),
        }
    }

    /// The strategies that can run with these settings, and those that cannot; each named one must.
    pub(crate) fn strategies(&self, base: &Settings) -> Result<(Vec<StrategyName>, Vec<Skipped>), LabError> {
        if let Some(named) = &self.strategies {
            for &name in named {
                site::settings_for(base, first_of(name, base))?;
            }
            return Ok((named.clone(), Vec::new()));
        }
        let (mut able, mut skipped) = (Vec::new(), Vec::new());
        for name in StrategyName::ALL {
            match site::settings_for(base, first_of(name, base)) {
                Ok(_) => able.push(name),
                Err(error) => skipped.push(Skipped { strategy: name.name(), reason: error.to_string() }),
            }
        }
        Ok((able, skipped))
    }
}

/// One entrant of a strategy; all of them need the same services.
pub(crate) fn first_of(strategy: StrategyName, base: &Settings) -> Entrant {
    Entrant::all_of(strategy, base).first().copied().unwrap_or(Entrant { strategy, partitions: None })
}
