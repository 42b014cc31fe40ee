//! A million people in one room: what they weigh and how long they take. It prints, and asserts no time.

use std::time::Instant;

use super::*;

const USERS: u64 = 1_000_000;
const CALLERS: u64 = 200;
const RANKED: usize = 20_000;

fn used(node: &Server) -> u64 {
    let script = "return tonumber(redis.call('INFO', 'memory'):match('used_memory:(%d+)'))";
    let answer = node.command(&["EVAL", script, "0"]).expect("an answer");
    answer.trim_start_matches(':').parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: a few minutes"]
async fn a_million_join_are_ranked_and_let_in() {
    let node = Server::start().expect("Redis starts");
    let everybody = Admission { max_active: USERS as u32, ..admission() };
    let pair = Pair::open(&[node.url()], everybody).await;
    let (before, began) = (used(&node), Instant::now());
    let mut callers = JoinSet::new();
    for at in 0..CALLERS as usize {
        let pair = Arc::clone(&pair);
        callers.spawn(async move {
            let mut some = Vec::new();
            for n in 0..USERS / CALLERS {
                let place = pair.join_at(at, user()).await.place;
                if n % (USERS / RANKED as u64) == 0 {
                    some.push(place);
                }
            }
            some
        });
    }
    let places: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let (joined, bytes) = (began.elapsed(), (used(&node) - before) / USERS);
    println!("{USERS} joined in {joined:.1?}: {:.0} per second, {bytes} bytes each", USERS as f64 / joined.as_secs_f64());

    let began = Instant::now();
    for place in &places {
        let seen = pair.place(place.entry).await.expect("a place");
        assert_eq!((seen.arrival, seen.ahead), (place.arrival, Some(place.arrival - 1)));
    }
    let each = began.elapsed() / places.len() as u32;
    println!("{} ranked, one after the other: {each:.1?} each", places.len());

    let (began, mut promoted, mut ticks) = (Instant::now(), 0, 0);
    while promoted < USERS {
        // On a busy machine an answer may come too late; then the count is looked up.
        let done = pair.rooms[0].tick(pair.concert, PLENTY).await;
        ticks += 1;
        promoted = match done {
            Ok(ticked) => promoted + ticked.promoted,
            Err(_) => pair.rooms[1].counts(pair.concert).await.map_or(promoted, |counts| counts.active),
        };
        assert!(ticks < USERS / 100, "{promoted} were let in");
    }
    let admitted = began.elapsed();
    println!("{promoted} let in by {ticks} ticks in {admitted:.1?}: {:.0} per second", promoted as f64 / admitted.as_secs_f64());
    println!("{} bytes each when all are active", (used(&node) - before) / USERS);
    assert_eq!(pair.counts().await.active, USERS);
}
