//! One step of admission: choose, tell the mirror, let in. See the opening of [`super`] for why in this order.

use boxoffice_domain::admission::INTERVAL_S_MAX;
use boxoffice_domain::room::{ENDED_KEPT_S, PROMOTIONS_PER_TICK_MAX, RATE_WINDOW_S};
use boxoffice_domain::{ConcertId, QueueEntryId, Stock};
use boxoffice_ports::{ActivePlace, RoomError, RoomMark, Ticked};

use super::script::{Arguments, CONFIRM, Said, TICK};
use super::wire::{self, Answer};
use super::{Known, RedisWaitingRoom, senseless, unavailable};

/// For how long one instance alone tells the mirror; it gives the right back when it has. After a crash another one
/// goes on.
const SAVER_US: i64 = 2_000_000;
/// A promotion that the mirror was not told of in this time is chosen again.
const PENDING_US: i64 = 10_000_000;
/// The most turns that one step ends, and that it tells the mirror of. The rest ends at its instant all the same.
const ENDED_PER_TICK_MAX: u32 = 2_000;
/// The most ended entries that one step forgets. The rest is forgotten by the next ones.
const FORGOTTEN_PER_TICK_MAX: u32 = 2_000;
/// Places that the mirror counts as given out before they are, so that none is given twice after a loss: a quarter of
/// those given, within these bounds. Whoever joins when they have run out waits until there are more.
pub(super) const RESERVED_MIN: u64 = 1_000;
pub(super) const RESERVED_MAX: u64 = 100_000;
/// Lua's numbers count exactly up to here.
const COUNT_MAX: u64 = 1 << 53;

/// What `tick.lua` found.
struct Chosen {
    expired: u64,
    epoch: Vec<u8>,
    /// `None`: nothing has changed, or another instance is telling the mirror.
    news: Option<News>,
}

/// What the mirror has to know.
struct News {
    mark_text: Vec<u8>,
    mark: RoomMark,
    began: Vec<ActivePlace>,
    ended: Vec<QueueEntryId>,
}

impl RedisWaitingRoom {
    pub(super) async fn step(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        let known = self.known(concert);
        let _turn = known.ticking.lock().await;
        let chosen = self.choose(&known, concert, stock).await?;
        let Some(news) = chosen.news else { return Ok(Ticked { promoted: 0, expired: chosen.expired }) };
        let (mut began, mut ended) = (Vec::new(), Vec::new());
        news.began.iter().for_each(|turn| began.extend_from_slice(turn.entry.0.as_bytes()));
        news.ended.iter().for_each(|entry| ended.extend_from_slice(entry.0.as_bytes()));
        self.mirror.save(concert, news.mark, news.began, news.ended).await.map_err(unavailable)?;
        let arguments = Arguments::default().bytes(chosen.epoch).bytes(self.instance.as_str()).bytes(news.mark_text);
        let arguments = arguments.number(news.mark.last_place).number(news.mark.promoted_to).bytes(began).bytes(ended);
        let promoted = match self.ask(concert, &CONFIRM, arguments).await? {
            Said::Done(mut answer) => answer.unsigned().ok_or_else(senseless)?,
            // The room was lost meanwhile: what the mirror heard waits for the next loss, or for the end of the turns.
            Said::OtherEpoch => 0,
            _ => return Err(senseless()),
        };
        Ok(Ticked { promoted, expired: chosen.expired })
    }

    async fn choose(&self, known: &Known, concert: ConcertId, stock: Stock) -> Result<Chosen, RoomError> {
        let longest = i64::from(INTERVAL_S_MAX).max(RATE_WINDOW_S) * 1_000_000;
        let arguments = Arguments::default().number(stock.obtainable.min(COUNT_MAX)).flag(stock.linked).bytes(self.instance.as_str());
        let arguments = arguments.number(SAVER_US).number(ENDED_KEPT_S * 1_000_000).number(longest).number(PENDING_US);
        let arguments = arguments.number(PROMOTIONS_PER_TICK_MAX).number(ENDED_PER_TICK_MAX).number(FORGOTTEN_PER_TICK_MAX);
        let arguments = arguments.number(RESERVED_MIN).number(RESERVED_MAX);
        let Said::Done(answer) = self.ask(concert, &TICK, arguments).await? else { return Err(senseless()) };
        let (now, total, chosen) = parse(answer).ok_or_else(senseless)?;
        known.paced().see(&chosen.epoch, now, total);
        Ok(chosen)
    }
}

fn parse(mut answer: Answer) -> Option<(i64, i64, Chosen)> {
    let now = answer.number()?;
    let (expired, is_news, epoch, total) = (answer.unsigned()?, answer.number()? == 1, answer.bytes()?, answer.number()?);
    let news = if is_news { Some(news(answer)?) } else { None };
    Some((now, total, Chosen { expired, epoch, news }))
}

fn news(mut answer: Answer) -> Option<News> {
    let mark_text = answer.bytes()?;
    let mut marks = std::str::from_utf8(&mark_text).ok()?.split(',').map(|part| part.parse::<u64>().ok());
    let mut next = || marks.next().flatten();
    let mark = RoomMark { last_place: next()?, promoted_to: next()?, served: next()?, expired: next()?, left: next()? };
    let mut began = Vec::new();
    for bytes in answer.list()?.all_bytes()? {
        began.push(wire::turn(&bytes)?);
    }
    // In one order for all instances, so that two batches never wait for each other.
    began.sort_unstable_by_key(|turn| turn.entry);
    let mut ended = Vec::new();
    for bytes in answer.list()?.all_bytes()? {
        ended.push(QueueEntryId(wire::uuid(&bytes)?));
    }
    ended.sort_unstable();
    Some(News { mark_text, mark, began, ended })
}
