use super::*;
use crate::testing::until;
use boxoffice_ports::WhenFailing::{Impaired, NotReady};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

fn figures(name: &str, up: bool, restarts: u64) -> Vec<TaskFigures> {
    vec![TaskFigures { name: name.to_owned(), up, restarts }]
}

fn supervised() -> (Arc<Supervisor>, Arc<dyn Tasks>) {
    let supervisor = Supervisor::new();
    (supervisor.clone(), supervisor)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_again_and_what_has_queued_is_served() {
    let (supervisor, tasks) = supervised();
    let (queue, waiting) = mpsc::channel(10);
    let (waiting, served) = (Arc::new(tokio::sync::Mutex::new(waiting)), Arc::new(Mutex::new(Vec::new())));
    let seen = served.clone();
    let kept = tasks.keep("sweep", NotReady, move || {
        let (waiting, seen) = (waiting.clone(), seen.clone());
        async move {
            let mut waiting = waiting.lock().await;
            while let Some(number) = waiting.recv().await {
                assert_ne!(number, 2, "a defect");
                seen.lock().unwrap().push(number);
            }
            Ok(())
        }
    });
    for number in 1..=4 {
        queue.send(number).await.unwrap();
    }
    until(|| supervisor.figures() == figures("sweep", false, 0)).await;
    sleep(PAUSE).await;
    until(|| *served.lock().unwrap() == [1, 3, 4]).await;
    assert_eq!(supervisor.figures(), figures("sweep", true, 1));
    assert_eq!(supervisor.failing(), [], "one failure is mended");
    drop(queue);
    until(|| supervisor.figures().is_empty()).await;
    kept.detach();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_again_and_again_is_named_until_it_has_run_for_long() {
    let (supervisor, tasks) = supervised();
    let (runs, failures) = (Arc::<AtomicU32>::default(), 10);
    let counted = runs.clone();
    let begun = Instant::now();
    let _kept = tasks.keep("prune", Impaired, move || {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        assert_ne!(number, 3, "beginning may fail as well");
        async move { if number <= failures { Err("it fails".into()) } else { std::future::pending().await } }
    });
    until(|| runs.load(Ordering::SeqCst) == 1).await;
    assert_eq!(supervisor.failing(), []);
    sleep(2 * PAUSE).await;
    let named = |failures| [FailingTask { name: "prune".to_owned(), when_failing: Impaired, failures }];
    assert_eq!(supervisor.failing(), named(2));
    while runs.load(Ordering::SeqCst) <= failures {
        sleep(PAUSE).await;
    }
    // 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 4 times 5 seconds.
    let took = begun.elapsed();
    assert!((Duration::from_millis(26_300)..Duration::from_millis(27_000)).contains(&took), "{took:?}");
    assert_eq!((supervisor.failing(), supervisor.figures()), (named(failures).to_vec(), figures("prune", false, 10)));
    sleep(STEADY).await;
    assert_eq!((supervisor.failing(), supervisor.figures()), (Vec::new(), figures("prune", true, 10)));
    supervisor.strike("prune");
    sleep(2 * PAUSE).await;
    assert_eq!((supervisor.failing(), supervisor.figures()), (Vec::new(), figures("prune", true, 11)), "a good run forgives");
}

#[tokio::test(start_paused = true)]
async fn a_task_ends_with_what_keeps_it_or_by_itself() {
    let (supervisor, tasks) = supervised();
    let held = Arc::new(());
    let owned = held.clone();
    let kept = tasks.keep("lane.0", NotReady, move || {
        let owned = owned.clone();
        async move {
            std::future::pending::<()>().await;
            drop(owned);
            Ok(())
        }
    });
    until(|| Arc::strong_count(&held) == 3).await;
    drop(kept);
    until(|| Arc::strong_count(&held) == 1).await;
    tasks.keep("short", NotReady, || async { Ok(()) }).detach();
    until(|| supervisor.figures().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_starts_nothing_again() {
    let (supervisor, tasks) = supervised();
    let kept = tasks.keep("relay.1", NotReady, || async { std::future::pending().await });
    let other = tasks.keep("relay.1", NotReady, || async { std::future::pending().await });
    assert_eq!(supervisor.strike("relay.1"), 2);
    until(|| supervisor.figures() == figures("relay.1", false, 0)).await;
    supervisor.close();
    until(|| supervisor.figures().is_empty()).await;
    drop((kept, other));
}
