//! Seat maps as they go out: rendered once a version, compressed once a version, shared by everybody who asks.
//!
//! A connection is sent pieces of that one copy ([`Pieces`]), so many that do not read cost what few do.
//!
//! What never changes of a seat is rendered once a date; a new version only copies it and fills in the statuses. Of
//! many who ask for the same new version one renders while the others wait for it.
//!
//! *Bounds.* [`DATES_MAX`] dates are kept; one more takes the place of the one nobody has asked for the longest.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use boxoffice_domain::DateId;
use boxoffice_engine::{SeatInfo, SeatSnapshot, SeatStatus, SeatView};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use super::problem::Problem;
use super::seats;

const DATES_MAX: usize = 64;
/// Halls below this are rendered where they are asked for.
const SMALL_HALL: usize = 1_000;
/// What a connection takes at once.
const PIECE: usize = 16 * 1_024;

/// One version of a date's map.
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) plain: Bytes,
    gzip: OnceCell<Bytes>,
    template: Arc<Template>,
}

impl Page {
    fn render(template: Option<Arc<Template>>, snapshot: &SeatSnapshot) -> Result<Self, Problem> {
        let template = match template {
            Some(template) => template,
            None => Arc::new(Template::new(snapshot.infos.clone())?),
        };
        Ok(Self { version: snapshot.version, plain: template.render(snapshot), gzip: OnceCell::new(), template })
    }

    /// Compressed when first asked for.
    pub(crate) async fn gzip(&self) -> Result<Bytes, Problem> {
        self.gzip.get_or_try_init(|| compress(self.plain.clone())).await.cloned()
    }
}

/// Does what takes a moment for so many seats: away from the threads that serve requests, unless they are few.
pub(crate) async fn beside<T: Send + 'static>(
    seats: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if seats < SMALL_HALL { work() } else { tokio::task::spawn_blocking(work).await.map_err(Problem::internal)? }
}

/// One copy of a map for all who are sent it: a connection takes it a piece at a time, as it writes, and not as a copy
/// of the whole.
pub(crate) struct Pieces(pub(crate) Bytes);

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let rest = &mut self.get_mut().0;
        let piece = rest.split_to(rest.len().min(PIECE));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

/// Compresses away from the threads that serve requests.
pub(crate) async fn compress(plain: Bytes) -> Result<Bytes, Problem> {
    let compressed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    Ok(compressed.await.map_err(Problem::internal)?.map_err(Problem::internal)?.into())
}

/// What does not change of a date's seats: each as JSON up to its status.
struct Template {
    infos: Arc<[SeatInfo]>,
    text: Vec<u8>,
    /// Where each seat's part of `text` ends.
    ends: Vec<usize>,
}

impl Template {
    fn new(infos: Arc<[SeatInfo]>) -> Result<Self, Problem> {
        const SAMPLE: SeatStatus = SeatStatus::Sold;
        let tail = format!("{}}}", quoted(SAMPLE)).len();
        let (mut text, mut ends) = (Vec::with_capacity(infos.len() * 96), Vec::with_capacity(infos.len()));
        for info in infos.iter() {
            serde_json::to_writer(&mut text, &seats::SeatView::new(info, SAMPLE)).map_err(Problem::internal)?;
            // `status` is the last member.
            text.truncate(text.len() - tail);
            ends.push(text.len());
        }
        Ok(Self { infos, text, ends })
    }

    fn render(&self, snapshot: &SeatSnapshot) -> Bytes {
        let mut body = Vec::with_capacity(self.text.len() + self.ends.len() * 14 + 64);
        body.extend_from_slice(format!("{{\"version\":{},\"items\":[", snapshot.version).as_bytes());
        let mut from = 0;
        for (&end, status) in self.ends.iter().zip(&snapshot.statuses) {
            if from > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&self.text[from..end]);
            body.extend_from_slice(quoted(*status).as_bytes());
            body.push(b'}');
            from = end;
        }
        body.extend_from_slice(b"]}");
        body.into()
    }
}

fn quoted(status: SeatStatus) -> &'static str {
    match status {
        SeatStatus::Available => "\"available\"",
        SeatStatus::Held => "\"held\"",
        SeatStatus::Sold => "\"sold\"",
    }
}

#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<Page>>>,
    /// One renders at a time.
    rendering: tokio::sync::Mutex<()>,
    asked_at: AtomicU64,
}

impl Slot {
    fn current(&self) -> Option<Arc<Page>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the module's opening.
pub(crate) struct SeatPages {
    slots: Mutex<HashMap<DateId, Arc<Slot>>>,
    /// Counts requests, to know who has not been asked for.
    asked: AtomicU64,
}

impl SeatPages {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::default(), asked: AtomicU64::new(0) }
    }

    /// The map of `date` at `version` or a later one; `None` for a date without seats.
    pub(crate) async fn page(&self, view: &SeatView, date: DateId, version: u64) -> Result<Option<Arc<Page>>, Problem> {
        let slot = self.slot(date);
        let fits = |page: &Arc<Page>| page.version >= version;
        if let Some(page) = slot.current().filter(fits) {
            return Ok(Some(page));
        }
        let _one_at_a_time = slot.rendering.lock().await;
        let current = slot.current();
        if let Some(page) = current.as_ref().filter(|page| fits(page)) {
            return Ok(Some(page.clone()));
        }
        let Some(snapshot) = view.date(date).await? else { return Ok(None) };
        let template = current.map(|page| page.template.clone()).filter(|template| Arc::ptr_eq(&template.infos, &snapshot.infos));
        let seats = snapshot.infos.len();
        let page = Arc::new(beside(seats, move || Page::render(template, &snapshot)).await?);
        *slot.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(page.clone());
        Ok(Some(page))
    }

    fn slot(&self, date: DateId) -> Arc<Slot> {
        let asked_at = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= DATES_MAX && !slots.contains_key(&date) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.asked_at.load(Ordering::Relaxed)).map(|(date, _)| *date);
            oldest.and_then(|oldest| slots.remove(&oldest));
        }
        let slot = slots.entry(date).or_default();
        slot.asked_at.store(asked_at, Ordering::Relaxed);
        slot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io::Read as _;

    fn info(number: u32, section: Option<&str>) -> SeatInfo {
        SeatInfo { number, section: section.map(Into::into), row: None, grade: "R \"best\"".into(), price: 100 }
    }

    #[test]
    fn rendered_map_is_what_serialising_would_give() {
        let infos: Arc<[SeatInfo]> = [info(1, None), info(2, Some("sold\"}")), info(3, Some("A"))].into();
        let statuses = vec![SeatStatus::Available, SeatStatus::Held, SeatStatus::Sold];
        let template = Template::new(infos.clone()).unwrap();
        let body = template.render(&SeatSnapshot { version: 7, infos, statuses });
        let grade = "R \"best\"";
        let expected = json!({"version": 7, "items": [
            {"number": 1, "section": null, "row": null, "grade": grade, "price": 100, "status": "available"},
            {"number": 2, "section": "sold\"}", "row": null, "grade": grade, "price": 100, "status": "held"},
            {"number": 3, "section": "A", "row": null, "grade": grade, "price": 100, "status": "sold"},
        ]});
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn a_connection_takes_pieces_of_the_one_copy() {
        let map: Bytes = (0..100_000).map(|n| n as u8).collect::<Vec<_>>().into();
        let memory = map.as_ptr_range();
        for length in [0, 1, PIECE, PIECE + 1, map.len()] {
            let mut body = std::pin::pin!(Pieces(map.slice(..length)));
            assert_eq!(body.as_ref().size(), BodySize::Sized(length as u64));
            let (mut read, mut context) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
            while let Poll::Ready(Some(Ok(piece))) = body.as_mut().poll_next(&mut context) {
                assert!(piece.len() <= PIECE && memory.contains(&piece.as_ptr()), "a piece is no copy");
                read.extend_from_slice(&piece);
            }
            assert!(read == map[..length], "{length}");
        }
    }

    #[tokio::test]
    async fn compressed_map_is_the_same_map() {
        let plain = Bytes::from_static(b"{\"version\":1,\"items\":[]}");
        let compressed = compress(plain.clone()).await.unwrap();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);
    }

    #[test]
    fn the_date_nobody_asks_for_makes_room() {
        let pages = SeatPages::new();
        let date = |n: usize| DateId(uuid::Uuid::from_u128(n as u128));
        for n in 0..DATES_MAX {
            pages.slot(date(n));
        }
        pages.slot(date(0));
        pages.slot(date(DATES_MAX));
        let slots = pages.slots.lock().unwrap();
        assert_eq!(slots.len(), DATES_MAX);
        assert!(slots.contains_key(&date(0)) && !slots.contains_key(&date(1)));
    }
}
