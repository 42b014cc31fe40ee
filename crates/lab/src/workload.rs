//! The commands of a comparison, as data: the same commands in the same order for every strategy.
//!
//! A workload is a list of jobs. A job is one user's script, each step sent when the one before it was answered; callers
//! take jobs one after another. A run touches fresh rows only, so that runs do not contend with each other.

use boxoffice_domain::concert::SEATS_PER_DATE_MAX;
use boxoffice_domain::money::Money;

/// The most commands of one run: with two to a seat, what the seats of one date allow.
pub const COMMANDS_MAX: u32 = 400_000;
/// The most callers of one run; each has a connection of its own over HTTP.
pub const CALLERS_MAX: u32 = 4_096;
/// The balance of every user before a run, minor units: more than any run can spend.
pub const FUNDS: Money = 50_000_000;
/// The seats of a big hall.
pub const HALL: u32 = 100_000;
/// Default numbers of callers and commands of a workload with a crowd.
pub const CROWD: u32 = 1_000;
pub const CROWD_COMMANDS: u32 = 20_000;
/// The price of every seat.
pub const PRICE: Money = 1_000;

/// One command of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Charge(Money),
    Use(Money),
    /// The job's seat.
    Hold,
    /// The job's seat and the next one.
    HoldPair,
    /// The best two adjacent seats that are free.
    HoldBest,
    /// Pays the job's reservation; not sent if the job has none.
    Pay,
}

/// The users of the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    One,
    /// So many, in turn.
    Some(u32),
    /// One job for each user.
    OneEach,
}

/// The seats of the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seats {
    None,
    /// The same seat for all.
    One,
    OneEach,
    /// Two each, in a hall of [`HALL`] or, for more jobs, as many as they need.
    Hall,
}

/// What the rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Effects: refused commands do not count.
    Applied,
    /// Answers: a refusal counts as well.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub steps: &'static [Step],
    pub users: Users,
    pub seats: Seats,
    pub rate: Rate,
}

/// The workloads that are compared by default.
pub fn compared() -> Vec<Workload> {
    WORKLOADS.into_iter().filter(|workload| workload.name != "charges" && !workload.is_crowd()).collect()
}

/// The amount of each charge of an overload.
pub const OVERLOADING: Money = 7;

/// Offered ten times more often than it can be answered.
pub const OVERLOAD: Workload = Workload {
    name: "overload",
    about: "charges over 1,000 wallets, first by the number of callers with the highest rate, then at ten times that rate",
    steps: &[Step::Charge(OVERLOADING)],
    users: Users::Some(1_000),
    seats: Seats::None,
    rate: Rate::Applied,
};

pub const WORKLOADS: [Workload; 7] = [
    Workload {
        name: "hot-wallet",
        about: "charges and uses of one wallet, funded beforehand",
        steps: &[Step::Charge(7), Step::Use(5)],
        users: Users::One,
        seats: Seats::None,
        rate: Rate::Applied,
    },
    Workload {
        name: "same-seat",
        about: "all users want the same seat; one gets it",
        steps: &[Step::Hold],
        users: Users::OneEach,
        seats: Seats::One,
        rate: Rate::Answered,
    },
    Workload {
        name: "spread",
        about: "charges and uses over 1,000 wallets",
        steps: &[Step::Charge(7), Step::Use(5)],
        users: Users::Some(1_000),
        seats: Seats::None,
        rate: Rate::Applied,
    },
    Workload {
        name: "hold-pay",
        about: "each user holds a seat of their own and pays it",
        steps: &[Step::Hold, Step::Pay],
        users: Users::OneEach,
        seats: Seats::OneEach,
        rate: Rate::Applied,
    },
    Workload {
        name: "charges",
        about: "charges of one wallet and nothing else",
        steps: &[Step::Charge(7)],
        users: Users::One,
        seats: Seats::None,
        rate: Rate::Applied,
    },
    Workload {
        name: "pairs",
        about: "each caller holds two seats of its own, side by side, in a hall of 100,000",
        steps: &[Step::HoldPair],
        users: Users::OneEach,
        seats: Seats::Hall,
        rate: Rate::Applied,
    },
    Workload {
        name: "best",
        about: "each caller holds the best two adjacent seats of a hall of 100,000",
        steps: &[Step::HoldBest],
        users: Users::OneEach,
        seats: Seats::Hall,
        rate: Rate::Applied,
    },
];

impl Workload {
    /// The workload of that name.
    pub fn named(name: &str) -> Option<Self> {
        WORKLOADS.into_iter().find(|workload| workload.name == name)
    }

    /// Whether it is about a crowd and a big hall.
    pub fn is_crowd(&self) -> bool {
        self.seats == Seats::Hall
    }

    /// The number of jobs for at most `commands` commands.
    pub fn jobs(&self, commands: u32) -> u32 {
        let jobs = (commands / self.steps.len() as u32).max(1);
        if self.is_crowd() { jobs.min(SEATS_PER_DATE_MAX / 2) } else { jobs }
    }

    /// Seats of one hold.
    pub fn seats_each(&self) -> u32 {
        if self.is_crowd() { 2 } else { 1 }
    }

    /// Users that `jobs` jobs need.
    pub fn user_count(&self, jobs: u32) -> u32 {
        match self.users {
            Users::One => 1,
            Users::Some(count) => count.min(jobs),
            Users::OneEach => jobs,
        }
    }

    /// Seats that `jobs` jobs need.
    pub fn seat_count(&self, jobs: u32) -> u32 {
        match self.seats {
            Seats::None => 0,
            Seats::One => 1,
            Seats::OneEach => jobs,
            Seats::Hall => HALL.max(2 * jobs),
        }
    }

    /// The index of a job's user among the users.
    pub fn user_of(&self, job: u32) -> u32 {
        match self.users {
            Users::One => 0,
            Users::Some(count) => job % count,
            Users::OneEach => job,
        }
    }

    /// The number of a job's seat; seats count from 1.
    pub fn seat_of(&self, job: u32) -> u32 {
        match self.seats {
            Seats::OneEach => job + 1,
            Seats::Hall => 2 * job + 1,
            Seats::None | Seats::One => 1,
        }
    }

    pub fn has_seats(&self) -> bool {
        self.seats != Seats::None
    }

    /// Whether entries are made in wallets.
    pub fn moves_money(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Charge(_) | Step::Use(_) | Step::Pay))
    }

    /// Whether wallets must be funded before.
    pub fn needs_funds(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Use(_) | Step::Pay))
    }

    /// The most that a run may take out of one wallet.
    #[cfg(test)]
    fn spent_by_one(&self, commands: u32) -> Money {
        let jobs = Money::from(self.jobs(commands).div_ceil(self.user_count(self.jobs(commands))));
        let each = |step: &Step| match step {
            Step::Use(amount) => *amount,
            Step::Pay => PRICE,
            Step::Charge(_) | Step::Hold | Step::HoldPair | Step::HoldBest => 0,
        };
        self.steps.iter().map(each).sum::<Money>() * jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for workload in WORKLOADS {
            assert_eq!(Workload::named(workload.name), Some(workload));
        }
        assert_eq!(Workload::named("hot"), None);
    }

    #[test]
    fn jobs_fit_the_commands_users_and_seats() {
        for workload in WORKLOADS {
            for commands in [1, 2, 3, 1_999, 3_000, COMMANDS_MAX] {
                let jobs = workload.jobs(commands);
                assert!(jobs >= 1 && (jobs * workload.steps.len() as u32 <= commands || jobs == 1), "{} {commands}", workload.name);
                let (users, seats) = (workload.user_count(jobs), workload.seat_count(jobs));
                assert!((0..jobs).all(|job| workload.user_of(job) < users), "{} {commands}", workload.name);
                let numbers = (0..jobs).all(|job| (1..=seats).contains(&workload.seat_of(job)));
                assert!(!workload.has_seats() || numbers, "{} {commands}", workload.name);
                assert!(seats <= SEATS_PER_DATE_MAX, "{} {commands}", workload.name);
                let last = workload.seat_of(jobs - 1) + workload.seats_each() - 1;
                assert!(!workload.has_seats() || last <= seats, "{} {commands}", workload.name);
                assert!(workload.spent_by_one(commands) <= FUNDS, "{}: no use may be refused for want of money", workload.name);
            }
        }
    }
}
