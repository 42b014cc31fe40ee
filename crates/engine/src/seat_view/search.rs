//! A caller's search for the best seats, from the first offer to the last: what it is offered next, what it waits for,
//! and when there is nothing left to be had.
//!
//! A wish is refused only by a view that was fresh after the search began and while nothing that others are being
//! offered could still serve it. Until then it waits, at most to its deadline: for another caller's claim, for a hold
//! that is about to end, for one round that brings the view up to date for all who wait ([`SeatView::catch_up`]).

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{DateId, SeatNumber};
use boxoffice_ports::StoreError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::best::{Look, Wish};
use super::{DateCell, SeatView, lock};

/// The pause before what was lost twice is tried for the third time; it doubles from there on.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(64);

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were quicker, or were being offered what was left, until the deadline.
    #[error("timed out while choosing seats")]
    TimedOut,
}

/// Seats to ask the ledger for. Dropped, they are offered to others again, as far as they are free.
pub struct Offer {
    choices: Vec<Vec<SeatNumber>>,
    claim: u64,
    cell: Arc<DateCell>,
    /// Dropped after the claim is given up, and so wakes those who wait for it.
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
    wish: Wish<'a>,
    deadline: Instant,
    offers: u32,
}

impl SeatView {
    /// Begins to look for seats of `date`; `deadline` is the end of its waiting.
    pub fn search<'a>(&'a self, date: DateId, wish: Wish<'a>, deadline: Instant) -> Search<'a> {
        Search { view: self, date, wish, deadline, offers: 0 }
    }
}

impl Search<'_> {
    /// What to ask the ledger for next, after it has found the offers before to be taken. `None`: nothing can be had.
    pub async fn next(&mut self) -> Result<Option<Offer>, SearchError> {
        let mut is_fresh = false;
        if self.offers > 0 {
            self.pause().await?;
            // What was offered was taken by callers of other instances, or the view would have known.
            self.catch_up().await?;
            is_fresh = true;
        }
        loop {
            match self.view.look(self.date, &self.wish).await? {
                None => return Ok(None),
                Some((Look::Offered { claim, choices, done }, cell)) => {
                    self.offers += 1;
                    return Ok(Some(Offer { choices, claim, cell, _done: done }));
                }
                Some((Look::Claimed(mut done), _)) => {
                    // It ends with an error: nothing is ever sent.
                    let _ended = timeout_at(self.deadline, done.changed()).await.map_err(|_| SearchError::TimedOut)?;
                }
                Some((Look::Ending(until), _)) => {
                    let left = (until - self.view.clock.now()).to_std().unwrap_or_default() + Duration::from_millis(1);
                    timeout_at(self.deadline, sleep(left)).await.map_err(|_| SearchError::TimedOut)?;
                }
                Some((Look::Nothing, _)) if is_fresh => return Ok(None),
                Some((Look::Nothing, _)) => {
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

    const PAIR: Wish<'static> = Wish { count: 2, grade: None, adjacent: true };

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn offered(view: &SeatView, wish: Wish<'_>) -> Option<Offer> {
        view.search(id(DATE), wish, soon()).next().await.unwrap()
    }

    fn free(count: u32) -> Vec<boxoffice_ports::SeatRow> {
        (1..=count).map(|number| seat_row(number, 1, SeatState::Available)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_offered_to_others_is_waited_for() {
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
        assert!(!waiting.is_finished(), "it may still come back");
        drop(first);
        assert_eq!(waiting.await.unwrap(), Some(vec![1, 2]), "it was not taken");
        let taken = offered(&view, PAIR).await.unwrap();
        view.apply(&[change(1, 2, held(9, 100)), change(2, 2, held(9, 100))]);
        assert!(offered(&view, PAIR).await.is_none(), "and once it is taken nobody waits for it");
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
        // Others that are lost again and again end there as well.
        let (view, _) = sole_view_of(free(40));
        let mut search = view.search(id(DATE), PAIR, Instant::now() + Duration::from_millis(700));
        let mut offers = 0;
        while let Ok(Some(_)) = search.next().await {
            offers += 1;
        }
        assert!((10..100).contains(&offers), "{offers}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_about_to_end_is_waited_for() {
        let mut rows = free(1);
        rows.push(seat_row(2, 1, held(9, 100)));
        let (view, clock) = sole_view_of(rows);
        clock.set(99);
        assert!(offered(&view, PAIR).await.is_none(), "a second is more than clocks differ by");
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
        assert!(waiting.await.unwrap(), "at its instant it is free");
    }

    #[tokio::test]
    async fn a_refusal_comes_from_a_view_that_was_fresh_after_the_wish() {
        let (view, store) = shared_view(free(2));
        view.catch_up().await.unwrap();
        let offer = offered(&view, PAIR).await.unwrap();
        view.apply(&[change(1, 2, sold(1)), change(2, 2, sold(1))]);
        drop(offer);
        // Another instance gave them back, and nothing was heard of it.
        store.commit(SeatChange { key: key(1), version: 3, state: SeatState::Available });
        store.commit(SeatChange { key: key(2), version: 3, state: SeatState::Available });
        let offer = offered(&view, PAIR).await;
        assert_eq!(offer.unwrap().choices()[0], [1, 2]);
    }

    #[tokio::test]
    async fn a_crowd_without_hope_is_refused_by_one_round() {
        let (view, store) = shared_view(vec![seat_row(1, 1, sold(1)), seat_row(2, 1, sold(1))]);
        view.catch_up().await.unwrap();
        assert!(offered(&view, PAIR).await.is_none());
        let (before, runs) = (store.asked(), view.rounds.runs());
        // A round is on its way that began before they came.
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
        assert_eq!(store.asked() - before, 1, "one round for all who came before it began");
        assert_eq!(store.loads(), 1, "no map was read again");
    }

    #[tokio::test]
    async fn what_another_instance_took_is_known_before_the_next_offer() {
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
