//! Compares what a run left in the store with the answers.
//!
//! An effect is a wallet entry, a reservation or a payment of a user who took part. Each answered effect must be there
//! once; an effect that was not answered must belong to a command without an answer. Sums, seats and the store's own
//! totals are compared as well, so that effects on other users are found, too. Each difference is a finding, in words;
//! without findings the answers were true.

use std::collections::{BTreeSet, HashMap, HashSet};

use boxoffice_domain::money::Money;
use boxoffice_domain::{DateId, EntryKind, ReservationStatus, SeatState, UserId};
use boxoffice_ports::{AuditReport, StoreError, Stores};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::caller::Person;
use super::drive::Tally;
use super::workload::{PRICE, Seats, Step, Workload};

/// Rows of one read.
const PAGE: u32 = 2_000;
/// Concurrent reads.
const READS: usize = 16;
/// The most findings of one run that are listed; the rest is counted.
const FINDINGS_MAX: usize = 12;

/// What one user owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Possessions {
    balance: Money,
    /// By id, with kind and amount.
    entries: Vec<(Uuid, EntryKind, Money)>,
    reservations: Vec<Uuid>,
    payments: Vec<Uuid>,
}

/// What a run did to the store.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Entries of charges and uses, reservations, payments.
    pub(super) applied: u32,
    pub(super) findings: Vec<String>,
    /// Broken invariants of the store, each with its row.
    pub(super) breaches: Vec<String>,
}

/// Reads what the users own whose commands were applied or had no answer. All others were refused; an effect for them
/// would show in the store's totals.
pub(super) async fn look(stores: &Stores, workload: &Workload, people: &[Person], tally: &Tally) -> Result<Vec<Possessions>, StoreError> {
    let places: BTreeSet<u32> = tally.applied.iter().map(|one| one.person).chain(tally.failed.iter().map(|one| one.0)).collect();
    let users: Vec<UserId> = places.iter().filter_map(|&at| people.get(at as usize)).map(|person| person.user).collect();
    let reads = users.into_iter().map(|user| possessions(stores, workload, user));
    stream::iter(reads).buffered(READS).try_collect().await
}

async fn possessions(stores: &Stores, workload: &Workload, user: UserId) -> Result<Possessions, StoreError> {
    let queries = &stores.queries;
    let mut found = Possessions { balance: queries.wallet(user).await?.balance, ..Possessions::default() };
    let mut after = None;
    while workload.moves_money() {
        let page = queries.entries(user, after, PAGE).await?;
        after = page.items.last().map(|entry| entry.seq);
        found.entries.extend(page.items.iter().map(|entry| (entry.id.0, entry.kind, entry.amount)));
        if !page.more {
            break;
        }
    }
    let mut after = None;
    while workload.has_seats() {
        let page = queries.reservations(user, after, PAGE).await?;
        after = page.items.last().map(|reservation| reservation.id);
        let alive = page.items.iter().filter(|one| matches!(one.status, ReservationStatus::Held | ReservationStatus::Confirmed));
        found.reservations.extend(alive.map(|one| one.id.0));
        if !page.more {
            break;
        }
    }
    let mut after = None;
    while workload.has_seats() {
        let page = queries.payments(user, after, PAGE).await?;
        after = page.items.last().map(|row| row.payment.id);
        found.payments.extend(page.items.iter().map(|row| row.payment.id.0));
        if !page.more {
            break;
        }
    }
    Ok(found)
}

/// The seats of a date that are not available.
pub(super) async fn taken_seats(stores: &Stores, date: DateId) -> Result<u32, StoreError> {
    let seats = stores.queries.seats(date).await?;
    Ok(seats.iter().filter(|row| row.seat.state != SeatState::Available).count() as u32)
}

/// Compares. `taken` is the number of seats of the run's date that are not available, if it has a date. `totals` are the
/// store's, before and after.
pub(super) fn compare(workload: &Workload, found: &[Possessions], taken: Option<u32>, totals: [&AuditReport; 2], tally: &Tally) -> Effects {
    let [before, after] = totals;
    let mut effects = Effects {
        breaches: after.breaches.iter().map(|breach| format!("{} broken: {}", breach.invariant, breach.detail)).collect(),
        ..Effects::default()
    };
    let mut made: HashMap<Kind, HashSet<Uuid>> = HashMap::new();
    for one in found {
        let sum: Money = one.entries.iter().map(|entry| entry.2).sum();
        if workload.moves_money() && one.balance != sum {
            effects.findings.push(format!("a balance is {}, the sum of its entries {sum}", one.balance));
        }
        // The first entry of a funded user is no effect of the run; entries come newest first.
        let funded = usize::from(workload.needs_funds());
        for (id, kind, amount) in one.entries.iter().rev().skip(funded) {
            let kind = Kind::of_entry(*kind);
            if !workload.steps.iter().any(|step| kind.amount(*step) == Some(*amount)) {
                effects.findings.push(format!("an entry of {amount} that no command asked for"));
            }
            made.entry(kind).or_default().insert(*id);
        }
        made.entry(Kind::Reservation).or_default().extend(&one.reservations);
        made.entry(Kind::Payment).or_default().extend(&one.payments);
    }
    let count = |kind: Kind| made.get(&kind).map_or(0, HashSet::len) as u32;
    effects.applied = [Kind::Charge, Kind::Use, Kind::Reservation, Kind::Payment].map(count).iter().sum();
    let mut answered = HashSet::new();
    let repeated = tally.applied.iter().filter(|applied| !answered.insert(applied.id)).count();
    if repeated > 0 {
        effects.findings.push(format!("{repeated} commands were answered with the id of another one"));
    }
    for kind in [Kind::Charge, Kind::Use, Kind::Reservation, Kind::Payment] {
        effects.findings.extend(answered_is_there(kind, made.get(&kind), tally));
    }
    if count(Kind::PaymentEntry) != count(Kind::Payment) {
        effects.findings.push(format!("{} payments, and {} of them in wallets", count(Kind::Payment), count(Kind::PaymentEntry)));
    }
    if let Some(taken) = taken.filter(|taken| workload.seats != Seats::None && *taken != workload.seats_each() * count(Kind::Reservation)) {
        effects.findings.push(format!("{taken} seats are taken by {} reservations", count(Kind::Reservation)));
    }
    let entries = count(Kind::Charge) + count(Kind::Use) + count(Kind::PaymentEntry) + count(Kind::Foreign);
    for (name, made) in [("entries", entries), ("reservations", count(Kind::Reservation)), ("payments", count(Kind::Payment))] {
        let grown = total(after, name).saturating_sub(total(before, name));
        if grown != u64::from(made) {
            effects.findings.push(format!("the store has {grown} more {name}, the users who took part have {made}"));
        }
    }
    limit(&mut effects.findings);
    effects
}

/// The kind of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Charge,
    Use,
    /// An entry by which a payment took money from a wallet.
    PaymentEntry,
    /// An entry of a kind that no workload makes.
    Foreign,
    Reservation,
    Payment,
}

impl Kind {
    fn of_entry(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Charge => Self::Charge,
            EntryKind::Use => Self::Use,
            EntryKind::Payment => Self::PaymentEntry,
            EntryKind::Refund => Self::Foreign,
        }
    }

    /// The amount of the entry of this kind that a step makes.
    fn amount(self, step: Step) -> Option<Money> {
        match (self, step) {
            (Self::Charge, Step::Charge(amount)) => Some(amount),
            (Self::Use, Step::Use(amount)) => Some(-amount),
            (Self::PaymentEntry, Step::Pay) => Some(-PRICE),
            _ => None,
        }
    }

    fn of_step(step: Step) -> Self {
        match step {
            Step::Charge(_) => Self::Charge,
            Step::Use(_) => Self::Use,
            Step::Hold | Step::HoldPair | Step::HoldBest => Self::Reservation,
            Step::Pay => Self::Payment,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Charge => "charges",
            Self::Use => "uses",
            Self::PaymentEntry => "entries of payments",
            Self::Foreign => "entries",
            Self::Reservation => "holds",
            Self::Payment => "payments",
        }
    }
}

/// Each answer has one effect; an effect without an answer belongs to a command without one.
fn answered_is_there(kind: Kind, made: Option<&HashSet<Uuid>>, tally: &Tally) -> Vec<String> {
    let mut findings = Vec::new();
    let empty = HashSet::new();
    let made = made.unwrap_or(&empty);
    let of_kind = tally.applied.iter().filter(|applied| Kind::of_step(applied.step) == kind);
    let answered: HashSet<Uuid> = of_kind.map(|applied| applied.id).collect();
    let missing = answered.difference(made).count();
    if missing > 0 {
        findings.push(format!("{missing} {} answered as done are not in the store", kind.name()));
    }
    let unanswered = made.difference(&answered).count();
    let unknown = tally.failed.iter().filter(|(_, step)| Kind::of_step(*step) == kind).count();
    if unanswered > unknown {
        findings.push(format!("{unanswered} {} are in the store and were not answered; {unknown} commands had no answer", kind.name()));
    }
    findings
}

fn total(report: &AuditReport, name: &str) -> u64 {
    report.counted.iter().find(|(counted, _)| *counted == name).map_or(0, |(_, count)| *count)
}

fn limit(findings: &mut Vec<String>) {
    if findings.len() > FINDINGS_MAX {
        let more = findings.len() - FINDINGS_MAX;
        findings.truncate(FINDINGS_MAX);
        findings.push(format!("and {more} more"));
    }
}
