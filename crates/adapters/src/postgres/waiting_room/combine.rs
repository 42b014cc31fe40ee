//! Whatever queued while the last question was out is asked together: ten thousand joins at once are a few commits.
//!
//! One question is out at a time. What waits is bounded by [`WAITING_MAX`]: beyond it the answer is
//! [`Unanswered::Full`] at once. A caller that goes away changes nothing: what it asked is asked. A lost connection
//! leaves unknown whether a question was answered, so only what may be asked twice may be asked here; it is, once.

use super::super::failure::{Class, Failure};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Questions asked together.
const TOGETHER_MAX: usize = 500;
/// Questions that wait for one room.
const WAITING_MAX: usize = 100_000;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Shared with everybody who asked at the same time.
    #[error("{0}")]
    Failed(#[source] Arc<Failure>),
    #[error("too many wait for this room")]
    Full,
    #[error("what had to ask has stopped")]
    Stopped,
}

/// Asks: one answer for each question, in their order.
type Ask<Q, A> = Box<dyn Fn(Arc<[Q]>) -> BoxFuture<'static, Result<Vec<A>, Failure>> + Send + Sync>;

pub(super) struct Combined<Q, A> {
    ask: Ask<Q, A>,
    waiting: Mutex<Waiting<Q, A>>,
}

type Told<A> = oneshot::Sender<Result<A, Unanswered>>;

struct Waiting<Q, A> {
    questions: Vec<(Q, Told<A>)>,
    /// Somebody is asking, and will ask what comes meanwhile.
    asking: bool,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Combined<Q, A> {
    pub(super) fn new(ask: Ask<Q, A>) -> Arc<Self> {
        Arc::new(Self { ask, waiting: Mutex::new(Waiting { questions: Vec::new(), asking: false }) })
    }

    pub(super) async fn ask(self: &Arc<Self>, question: Q) -> Result<A, Unanswered> {
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.questions.len() >= WAITING_MAX {
                return Err(Unanswered::Full);
            }
            waiting.questions.push((question, tell));
            if !waiting.asking {
                waiting.asking = true;
                tokio::spawn(Asking { combined: Arc::clone(self), ended: false }.run());
            }
        }
        told.await.unwrap_or(Err(Unanswered::Stopped))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<Q, A>> {
        // Nothing under this mutex can fail half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks now. When it ends, the next to come asks; who waits although it ended was let down by a defect.
struct Asking<Q, A> {
    combined: Arc<Combined<Q, A>>,
    /// It found nothing more to ask and said so: from then on somebody else may be asking.
    ended: bool,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Asking<Q, A> {
    async fn run(mut self) {
        while let Some((questions, tell)) = self.next() {
            let questions: Arc<[Q]> = questions.into();
            let mut answers = (self.combined.ask)(questions.clone()).await;
            if answers.as_ref().is_err_and(|failure| failure.class() == Class::Lost) {
                answers = (self.combined.ask)(questions.clone()).await;
            }
            match answers {
                Ok(answers) if answers.len() == tell.len() => {
                    // Whoever went away is not told.
                    tell.into_iter().zip(answers).for_each(|(tell, answer)| drop(tell.send(Ok(answer))));
                }
                Ok(answers) => {
                    let failure = Failure::Count { what: "answers", changed: answers.len(), expected: tell.len() };
                    Self::fail(tell, failure);
                }
                Err(failure) => Self::fail(tell, failure),
            }
        }
    }

    fn fail(tell: Vec<Told<A>>, failure: Failure) {
        let failure = Arc::new(failure);
        tell.into_iter().for_each(|tell| drop(tell.send(Err(Unanswered::Failed(failure.clone())))));
    }

    /// The oldest that wait; `None` ends the asking, while nobody can begin to wait.
    fn next(&mut self) -> Option<(Vec<Q>, Vec<Told<A>>)> {
        let mut waiting = self.combined.waiting();
        if waiting.questions.is_empty() {
            waiting.asking = false;
            self.ended = true;
            return None;
        }
        let together = waiting.questions.len().min(TOGETHER_MAX);
        let rest = waiting.questions.split_off(together);
        Some(std::mem::replace(&mut waiting.questions, rest).into_iter().unzip())
    }
}

impl<Q, A> Drop for Asking<Q, A> {
    fn drop(&mut self) {
        if !self.ended {
            let mut waiting = self.combined.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.asking = false;
            waiting.questions.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn what_queued_meanwhile_is_asked_together_in_order_and_bounded() {
        let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::<Mutex<Vec<Vec<usize>>>>::default());
        let (entered, seen) = (gate.clone(), sizes.clone());
        let combined = Combined::new(Box::new(move |questions: Arc<[usize]>| {
            let entered = entered.clone();
            seen.lock().unwrap().push(questions.to_vec());
            Box::pin(async move {
                entered.acquire().await.unwrap().forget();
                Ok(questions.iter().map(|question| question * 2).collect())
            })
        }));
        let mut tasks = JoinSet::new();
        for question in 0..=TOGETHER_MAX + 1 {
            let asked = combined.clone();
            tasks.spawn(async move { (question, asked.ask(question).await.unwrap()) });
            // Each has queued before the next one asks.
            while combined.waiting().questions.len() + usize::from(sizes.lock().unwrap().len() == 1) < question + 1 {
                tokio::task::yield_now().await;
            }
        }
        gate.add_permits(3);
        while let Some(told) = tasks.join_next().await {
            let (question, answer) = told.unwrap();
            assert_eq!(answer, question * 2);
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().map(Vec::len).collect::<Vec<_>>(), [1, TOGETHER_MAX, 1]);
        assert!(sizes.concat().is_sorted());
    }

    #[tokio::test]
    async fn a_lost_connection_is_tried_again_once_and_any_other_failure_is_told_to_all() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let combined = Combined::new(Box::new(move |questions: Arc<[Failing]>| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            let answer = match questions[0] {
                Failing::Once if nth == 0 => Err(Failure::Lost("gone".into())),
                Failing::Always => Err(Failure::Lost("gone".into())),
                Failing::Refused => Err(Failure::Data("nonsense".to_owned())),
                Failing::Short => Ok(Vec::new()),
                Failing::Once => Ok(vec![(); questions.len()]),
            };
            Box::pin(std::future::ready(answer))
        }));
        for (failing, expected_tries, is_answered) in
            [(Failing::Once, 2, true), (Failing::Always, 2, false), (Failing::Refused, 1, false), (Failing::Short, 1, false)]
        {
            tries.store(0, Ordering::SeqCst);
            let answer = combined.ask(failing).await;
            assert_eq!((tries.load(Ordering::SeqCst), answer.is_ok()), (expected_tries, is_answered), "{answer:?}");
        }
    }

    #[derive(Clone, Copy)]
    enum Failing {
        Once,
        Always,
        Refused,
        Short,
    }

    #[tokio::test]
    async fn a_panic_lets_nobody_wait_for_ever_and_the_next_one_is_asked() {
        let tries = AtomicUsize::new(0);
        let combined = Combined::new(Box::new(move |questions: Arc<[()]>| {
            let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                assert!(!first, "a defect");
                Ok(questions.to_vec())
            })
        }));
        assert!(matches!(combined.ask(()).await, Err(Unanswered::Stopped)));
        assert!(combined.ask(()).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_has_ended_takes_nothing_from_the_next() {
        let combined: Arc<Combined<(), ()>> = Combined::new(Box::new(|_| Box::pin(std::future::pending())));
        combined.waiting().asking = true;
        let mut ending = Asking { combined: combined.clone(), ended: false };
        assert!(ending.next().is_none());
        // The next one begins before this one is gone.
        let asked = tokio::spawn({
            let combined = combined.clone();
            async move { combined.ask(()).await }
        });
        while !combined.waiting().asking {
            tokio::task::yield_now().await;
        }
        drop(ending);
        assert!(combined.waiting().asking, "it still asks");
        asked.abort();
    }

    #[tokio::test]
    async fn too_many_are_turned_away_at_once() {
        let combined: Arc<Combined<(), ()>> = Combined::new(Box::new(|_| Box::pin(std::future::pending())));
        let (tell, _told) = oneshot::channel();
        combined.waiting().asking = true;
        combined.waiting().questions.push(((), tell));
        while combined.waiting().questions.len() < WAITING_MAX {
            let (tell, _) = oneshot::channel();
            combined.waiting().questions.push(((), tell));
        }
        assert!(matches!(combined.ask(()).await, Err(Unanswered::Full)));
    }
}
