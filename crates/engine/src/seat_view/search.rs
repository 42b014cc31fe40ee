//! A caller's search for the best seats: what it is offered next, what it waits for, and when no seat is left for it.
//!
//! A preference is refused only by a view that was brought up to date after the search began. Nor is it refused while
//! seats that are on offer to other callers could still fit. Until then the search waits, at most to its deadline: for
//! another caller's claim, for a hold that is about to end, or for a round ([`SeatView::catch_up`]). One round brings
//! the view up to date for all searches that wait.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{DateId, SeatNumber};
use boxoffice_ports::StoreError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::best::{Availability, SeatPreference};
use super::view::{DateCell, SeatView};
use crate::sync::lock;

/// The pause before the third offer, when two were lost to other callers; it doubles from there on.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(64);

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Until the deadline other callers were quicker, or what was left was on offer to them.
    #[error("timed out waiting for seats that are on offer to other callers")]
    TimedOut,
}

/// Seats to ask the ledger for. When it is dropped, they are offered again, as far as they are free.
pub struct Offer {
    choices: Vec<Vec<SeatNumber>>,
    claim: u64,
    cell: Arc<DateCell>,
    /// Dropped after the claim has ended, and so wakes the searches that wait for it.
    _done: watch::Sender<()>,
}

impl Offer {
    /// Disjoint choices, the best first.
    pub fn choices(&self) -> &[Vec<SeatNumber>] {
        &self.choices
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(map) = &mut *lock(&self.cell.map) {
            map.release(self.claim);
        }
    }
}

/// See the module's opening.
pub struct Search<'a> {
    view: &'a SeatView,
    date: DateId,
    preference: SeatPreference<'a>,
    deadline: Instant,
    offers: u32,
}

impl SeatView {
    /// Begins to look for seats of `date`, waiting until `deadline` at most.
    pub fn search<'a>(&'a self, date: DateId, preference: SeatPreference<'a>, deadline: Instant) -> Search<'a> {
        Search { view: self, date, preference, deadline, offers: 0 }
    }
}

impl Search<'_> {
    /// What to ask the ledger for next, after it has refused the offers before. `None`: no seats are left for this
    /// preference.
    pub async fn next(&mut self) -> Result<Option<Offer>, SearchError> {
        let mut is_fresh = false;
        if self.offers > 0 {
            self.pause().await?;
            // Callers of other instances took the offered seats, or the view would have known.
            self.catch_up().await?;
            is_fresh = true;
        }
        loop {
            match self.view.look(self.date, &self.preference).await? {
                None => return Ok(None),
                Some((Availability::Offered { claim, choices, done }, cell)) => {
                    self.offers += 1;
                    return Ok(Some(Offer { choices, claim, cell, _done: done }));
                }
                Some((Availability::Claimed(mut done), _)) => {
                    // This ends with an error: the channel closes, and nothing is ever sent.
                    let _ended = timeout_at(self.deadline, done.changed()).await.map_err(|_| SearchError::TimedOut)?;
                }
                Some((Availability::Ending(until), _)) => {
                    let left = (until - self.view.clock.now()).to_std().unwrap_or_default() + Duration::from_millis(1);
                    timeout_at(self.deadline, sleep(left)).await.map_err(|_| SearchError::TimedOut)?;
                }
                Some((Availability::Nothing, _)) if is_fresh => return Ok(None),
                Some((Availability::Nothing, _)) => {
                    self.catch_up().await?;
                    is_fresh = true;
                }
            }
        }
    }

    async fn catch_up(&self) -> Result<(), SearchError> {
        timeout_at(self.deadline, self.view.catch_up()).await.map_err(|_| SearchError::TimedOut)??;
        Ok(())
    }

    async fn pause(&self) -> Result<(), SearchError> {
        let pause = if self.offers < 2 { Duration::ZERO } else { (PAUSE * (1 << (self.offers - 2).min(5))).min(PAUSE_MAX) };
        if Instant::now() + pause >= self.deadline {
            return Err(SearchError::TimedOut);
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seat_view::tests::{change, held, shared_view, sold, sole_view_of};
    use crate::testing::{DATE, id, key, seat_row, until};
    use boxoffice_domain::{SeatChange, SeatState};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PAIR: SeatPreference<'static> = SeatPreference { count: 2, grade: None, adjacent: true };

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn offered(view: &SeatView, preference: SeatPreference<'_>) -> Option<Offer> {
        view.search(id(DATE), preference, soon()).next().await.unwrap()
    }

    fn free(count: u32) -> Vec<boxoffice_ports::SeatRow> {
        (1..=count).map(|number| seat_row(number, 1, SeatState::Available)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_waits_for_seats_on_offer_to_others() {
        let (view, _) = sole_view_of(free(2));
        let first = offered(&view, PAIR).await.unwrap();
        assert_eq!(first.choices()[0], [1, 2]);
        let waiting = {
            let view = view.clone();
            tokio::spawn(async move { offered(&view, PAIR).await.map(|offer| offer.choices()[0].clone()) })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished(), "the offer may still come back");
        drop(first);
        assert_eq!(waiting.await.unwrap(), Some(vec![1, 2]), "the seats were not taken");
        let taken = offered(&view, PAIR).await.unwrap();
        view.apply(&[change(1, 2, held(9, 100)), change(2, 2, held(9, 100))]);
        assert!(offered(&view, PAIR).await.is_none(), "and once they are taken no search waits for them");
        drop(taken);
        assert!(offered(&view, PAIR).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_the_deadline() {
        let (view, _) = sole_view_of(free(2));
        let _kept = offered(&view, PAIR).await.unwrap();
        let began = Instant::now();
        let found = view.search(id(DATE), PAIR, began + Duration::from_millis(700)).next().await;
        assert!(matches!(found, Err(SearchError::TimedOut)));
        assert_eq!(began.elapsed(), Duration::from_millis(700));
        // A search whose offers are lost again and again ends there as well.
        let (view, _) = sole_view_of(free(40));
        let mut search = view.search(id(DATE), PAIR, Instant::now() + Duration::from_millis(700));
        let mut offers = 0;
        while let Ok(Some(_)) = search.next().await {
            offers += 1;
        }
        assert!((10..100).contains(&offers), "{offers}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_waits_for_a_hold_that_is_about_to_end() {
        let mut rows = free(1);
        rows.push(seat_row(2, 1, held(9, 100)));
        let (view, clock) = sole_view_of(rows);
        clock.set(99);
        assert!(offered(&view, PAIR).await.is_none(), "clocks differ by less than a second");
        let waiting = {
            let view = view.clone();
            tokio::spawn(async move { offered(&view, PAIR).await.is_some() })
        };
        assert!(!waiting.await.unwrap());
        clock.set_ms(99_900);
        let waiting = {
            let view = view.clone();
            tokio::spawn(async move { offered(&view, PAIR).await.is_some() })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        clock.set(100);
        assert!(waiting.await.unwrap(), "the seat is free at that instant");
    }

    #[tokio::test]
    async fn a_search_is_refused_by_a_view_read_after_it_began() {
        let (view, store) = shared_view(free(2));
        view.catch_up().await.unwrap();
        let offer = offered(&view, PAIR).await.unwrap();
        view.apply(&[change(1, 2, sold(1)), change(2, 2, sold(1))]);
        drop(offer);
        // Another instance gave them back, and its message was lost.
        store.commit(SeatChange { key: key(1), version: 3, state: SeatState::Available });
        store.commit(SeatChange { key: key(2), version: 3, state: SeatState::Available });
        let offer = offered(&view, PAIR).await;
        assert_eq!(offer.unwrap().choices()[0], [1, 2]);
    }

    #[tokio::test]
    async fn one_round_refuses_a_crowd_when_nothing_is_left() {
        let (view, store) = shared_view(vec![seat_row(1, 1, sold(1)), seat_row(2, 1, sold(1))]);
        view.catch_up().await.unwrap();
        assert!(offered(&view, PAIR).await.is_none());
        let (before, runs) = (store.asked(), view.rounds.runs());
        // A round is under way that began before the crowd came.
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let early = {
            let (view, gate) = (view.clone(), gate.clone());
            let round = async move {
                gate.acquire().await.unwrap().forget();
                Ok(true)
            };
            tokio::spawn(async move { view.rounds.run(|| round).await })
        };
        until(|| view.rounds.runs() == runs + 1).await;
        let refused = Arc::new(AtomicUsize::new(0));
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..2_000 {
            let (view, refused) = (view.clone(), refused.clone());
            crowd.spawn(async move {
                if offered(&view, PAIR).await.is_none() {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        until(|| view.rounds.waiting() == 2_001).await;
        gate.add_permits(1);
        assert!(early.await.unwrap().unwrap());
        crowd.join_all().await;
        assert_eq!(refused.load(Ordering::SeqCst), 2_000);
        assert_eq!(store.asked() - before, 1, "one round for all that came before it began");
        assert_eq!(store.loads(), 1, "no map was read again");
    }

    #[tokio::test]
    async fn seats_taken_by_another_instance_are_known_before_the_next_offer() {
        let (view, store) = shared_view(free(6));
        view.catch_up().await.unwrap();
        let mut search = view.search(id(DATE), PAIR, soon());
        let offer = search.next().await.unwrap().unwrap();
        assert_eq!(offer.choices()[0], [1, 2]);
        store.commit(SeatChange { key: key(1), version: 2, state: sold(1) });
        drop(offer);
        assert_eq!(search.next().await.unwrap().unwrap().choices()[0], [2, 3]);
    }
}
