//! Redlock when some of its nodes are away.

use super::*;

/// As long as a command of the server waits.
const WAIT: Duration = Duration::from_secs(3);
/// A call is quick if it takes less than this: hundreds of times what it takes on five healthy nodes, and less than one
/// that waits for a node that hangs.
const QUICK: Duration = Duration::from_millis(300);

/// One turn; how long it took.
async fn turn(lock: &Redlock) -> Result<Duration, LockError> {
    let asked = Instant::now();
    timeout(LONG, lock.acquire(vec![key()], fresh(), Deadline::after(WAIT))).await.expect("in time")?.release().await;
    Ok(asked.elapsed())
}

/// Turns of several callers, with `disturb` called in their midst; the slowest.
async fn turns_while(lock: &Arc<Redlock>, disturb: impl FnOnce()) -> Duration {
    const CALLERS: usize = 4;
    const TURNS: usize = 60;
    let (mut tasks, done) = (JoinSet::new(), Arc::new(AtomicU32::new(0)));
    for _ in 0..CALLERS {
        let (lock, done) = (lock.clone(), done.clone());
        tasks.spawn(async move {
            let mut slowest = Duration::ZERO;
            for _ in 0..TURNS {
                slowest = slowest.max(turn(&lock).await.expect("no acquire fails"));
                done.fetch_add(1, Ordering::SeqCst);
            }
            slowest
        });
    }
    until("a third of the turns are taken", || done.load(Ordering::SeqCst) as usize >= CALLERS * TURNS / 3).await;
    disturb();
    assert!((done.load(Ordering::SeqCst) as usize) < CALLERS * TURNS, "it was called before the last turn");
    timeout(LONG * 2, tasks.join_all()).await.expect("in time").into_iter().max().unwrap_or_default()
}

/// How many turns it takes until one is quick; bounded, in case none is.
async fn until_quick(lock: &Redlock) -> u32 {
    let deadline = Instant::now() + LONG;
    for turns in 1.. {
        if turn(lock).await.expect("no acquire fails") < QUICK {
            return turns;
        }
        assert!(Instant::now() < deadline, "calls stay slow");
    }
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_five_that_ends_and_comes_back_fails_no_acquire() {
    let mut nodes = REDLOCK.own();
    let lock = Arc::new(redlock(&nodes, LEASE_SHORT));
    let slowest = turns_while(&lock, || nodes[1].kill().expect("killed")).await;
    println!("one of five ended: slowest turn {slowest:?}");
    nodes[1].restart().expect("started again");
    // It votes again when every lease from before its restart has ended.
    let mut turns = 0;
    let deadline = Instant::now() + LONG;
    while kept_while_held(&lock, &nodes).await < nodes.len() {
        turns += 1;
        assert!(Instant::now() < deadline, "it never votes again");
    }
    println!("it voted again after {turns} turns");
}

/// On how many nodes the key of a lock exists while it is held.
async fn kept_while_held(lock: &Redlock, nodes: &[Server]) -> usize {
    let one = key();
    let lease = timeout(LONG, lock.acquire(vec![one], fresh(), Deadline::after(WAIT))).await.expect("in time").expect("no acquire fails");
    let on = kept(nodes, one);
    lease.release().await;
    on
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_five_that_hangs_fails_no_acquire_and_slows_calls_for_a_moment_only() {
    let nodes = REDLOCK.own();
    let lock = Arc::new(redlock(&nodes, LEASE_SHORT));
    let slowest = turns_while(&lock, || nodes[2].pause().expect("paused")).await;
    let turns = until_quick(&lock).await;
    println!("one of five hung: slowest turn {slowest:?}, quick after {turns} more");
    // A lease is renewed on the nodes that answer.
    let lease = lock.acquire(vec![key()], fresh(), Deadline::after(WAIT)).await.expect("a lock");
    assert!(timeout(LEASE_SHORT * 2, lease.lost()).await.is_err(), "it is renewed");
    lease.release().await;
    nodes[2].resume().expect("resumed");
    let deadline = Instant::now() + LONG;
    while kept_while_held(&lock, &nodes).await < nodes.len() {
        assert!(Instant::now() < deadline, "it never votes again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_before_a_node_hung_is_kept() {
    let nodes = REDLOCK.own();
    let lock = redlock(&nodes, LEASE_SHORT);
    let lease = lock.acquire(vec![key()], fresh(), Deadline::after(WAIT)).await.expect("a lock");
    nodes[0].pause().expect("paused");
    assert!(timeout(LEASE_SHORT * 3, lease.lost()).await.is_err(), "four of five extend it");
    nodes[0].resume().expect("resumed");
    timeout(LONG, lease.release()).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_of_five_ended_calls_are_refused_in_time_and_work_again_later() {
    let mut nodes = REDLOCK.own();
    let lock = redlock(&nodes, LEASE_SHORT);
    let lease = lock.acquire(vec![key()], fresh(), Deadline::after(WAIT)).await.expect("a lock");
    nodes[..3].iter_mut().for_each(|node| node.kill().expect("killed"));
    for _ in 0..3 {
        let asked = Instant::now();
        let refused =
            timeout(LONG, lock.acquire(vec![key()], fresh(), Deadline::after(Duration::from_millis(400)))).await.expect("its wait ends");
        println!("three of five ended: refused after {:?} of a wait of 400ms", asked.elapsed());
        assert!(refused.is_err(), "two are no majority");
    }
    let Err(LockError::Unavailable(error)) = lock.acquire(vec![key()], fresh(), Deadline::after(SHORT)).await else {
        panic!("two are no majority")
    };
    assert_eq!(error.to_string(), "2 of 5 Redlock nodes can vote, 3 are needed");
    timeout(LONG, lease.lost()).await.expect("two cannot extend it");
    timeout(LONG, lease.release()).await.expect("in time");
    nodes[..3].iter_mut().for_each(|node| node.restart().expect("started again"));
    let deadline = Instant::now() + LONG;
    while let Err(error) = turn(&lock).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_of_five_hung_calls_are_refused_in_time_and_work_again_later() {
    let nodes = REDLOCK.own();
    let lock = redlock(&nodes, LEASE_SHORT);
    turn(&lock).await.expect("a lock");
    nodes[..3].iter().for_each(|node| node.pause().expect("paused"));
    for _ in 0..3 {
        let asked = Instant::now();
        let refused =
            timeout(LONG, lock.acquire(vec![key()], fresh(), Deadline::after(Duration::from_millis(400)))).await.expect("its wait ends");
        println!("three of five hung: refused after {:?} of a wait of 400ms", asked.elapsed());
        assert!(refused.is_err(), "two are no majority");
    }
    nodes[..3].iter().for_each(|node| node.resume().expect("resumed"));
    let deadline = Instant::now() + LONG;
    while let Err(error) = turn(&lock).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_see_different_nodes_exclude_each_other() {
    // Each sees three of the five, and absent nodes instead of the others: any two majorities overlap.
    let nodes = REDLOCK.own();
    let seen = |from: usize| -> Vec<String> {
        let own = |at: usize| (from..from + 3).contains(&at);
        (0..5).map(|at| if own(at) { nodes[at].url() } else { format!("redis://127.0.0.1:{}", at + 1) }).collect()
    };
    let [left, right] = [0, 2]
        .map(|from| Redlock::start(&seen(from), LEASE_LONG, Arc::default(), &*boxoffice_ports::contract::supervisor()).expect("addresses"));
    let one = key();
    for (holder, other) in [(&left, &right), (&right, &left)] {
        let lease = holder.acquire(vec![one], fresh(), Deadline::after(LONG)).await.expect("three of five");
        let refused = other.acquire(vec![one], fresh(), Deadline::after(Duration::from_millis(300))).await;
        assert!(matches!(refused, Err(LockError::Busy { same_command: false })));
        lease.release().await;
    }
}
