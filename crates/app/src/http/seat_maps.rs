//! Seat maps as they are sent: rendered once for each version and filter, compressed once, shared by all requests.
//!
//! The constant part of a seat is rendered once a date; a new version copies it and fills in the statuses. Of many
//! requests for the same new map one renders, and the others wait for it.
//!
//! *Bounds.* [`DATES_MAX`] dates are kept; one more evicts the least recently requested. Of a date one version is kept,
//! at most four times as big as its whole map: each seat is on that, on the map of the free seats, and on the two maps
//! of its grade. A grade that no seat has keeps nothing.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::web::Bytes;
use boxoffice_domain::DateId;
use boxoffice_engine::{SeatInfo, SeatSnapshot, SeatStatus, SeatView};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use super::problem::Problem;
use super::views::{SeatMap, SeatView as SeatOnMap};

const DATES_MAX: usize = 64;
/// Dates with fewer seats are rendered on the thread of the request.
const SMALL_DATE: usize = 1_000;
/// Smaller bodies are sent uncompressed.
const GZIP_MIN_BYTES: usize = 1_024;
/// The end of a map.
const END: &[u8] = b"]}";

/// Which seats a map shows; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(crate) only_available: bool,
    pub(crate) grade: Option<String>,
}

impl Filter {
    fn takes(&self, info: &SeatInfo, status: SeatStatus) -> bool {
        (!self.only_available || status == SeatStatus::Available) && self.grade.as_ref().is_none_or(|grade| *info.grade == **grade)
    }
}

/// One version of a date's seats, and the maps that were rendered of it.
pub(crate) struct DateMaps {
    snapshot: SeatSnapshot,
    template: Arc<Template>,
    maps: Mutex<HashMap<Filter, Arc<Map>>>,
}

/// The forms of a map that were requested so far.
#[derive(Default)]
struct Map {
    plain: OnceCell<Bytes>,
    gzip: OnceCell<Bytes>,
}

impl DateMaps {
    fn new(template: Option<Arc<Template>>, snapshot: SeatSnapshot) -> Result<Arc<Self>, Problem> {
        let template = match template {
            Some(template) => template,
            None => Arc::new(Template::new(snapshot.infos.clone())?),
        };
        Ok(Arc::new(Self { snapshot, template, maps: Mutex::default() }))
    }

    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version
    }

    /// The seats that `filter` takes, and whether they are compressed: only if `gzip` is wanted and saves something.
    pub(crate) async fn map(self: &Arc<Self>, filter: Filter, gzip: bool) -> Result<(Bytes, bool), Problem> {
        let map = self.shared(&filter);
        let maps = self.clone();
        let seats = self.snapshot.infos.len();
        let plain = map.plain.get_or_try_init(|| off_thread(seats, move || maps.template.render(&maps.snapshot, &filter))).await?;
        if !gzip || plain.len() < GZIP_MIN_BYTES {
            return Ok((plain.clone(), false));
        }
        Ok((map.gzip.get_or_try_init(|| compress(plain.clone())).await?.clone(), true))
    }

    fn shared(&self, filter: &Filter) -> Arc<Map> {
        if filter.grade.as_ref().is_some_and(|grade| !self.template.grades.contains(grade.as_str())) {
            return Arc::default();
        }
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.entry(filter.clone()).or_default().clone()
    }
}

/// Runs work over so many seats: off the threads that serve requests, unless they are few.
async fn off_thread<T: Send + 'static>(seats: usize, work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    if seats < SMALL_DATE { work() } else { tokio::task::spawn_blocking(work).await.map_err(Problem::internal)? }
}

/// Compresses off the threads that serve requests.
async fn compress(plain: Bytes) -> Result<Bytes, Problem> {
    let compressed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    Ok(compressed.await.map_err(Problem::internal)?.map_err(Problem::internal)?.into())
}

/// The constant part of a date's seats: each as JSON up to its status.
struct Template {
    infos: Arc<[SeatInfo]>,
    grades: HashSet<Arc<str>>,
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
            serde_json::to_writer(&mut text, &SeatOnMap::new(info, SAMPLE)).map_err(Problem::internal)?;
            // `status` is the last member.
            text.truncate(text.len() - tail);
            ends.push(text.len());
        }
        let grades = infos.iter().map(|info| info.grade.clone()).collect();
        Ok(Self { infos, grades, text, ends })
    }

    fn render(&self, snapshot: &SeatSnapshot, filter: &Filter) -> Result<Bytes, Problem> {
        let is_whole = *filter == Filter::default();
        let mut body = Vec::with_capacity(if is_whole { self.text.len() + self.ends.len() * 14 + 64 } else { 0 });
        serde_json::to_writer(&mut body, &SeatMap { version: snapshot.version, items: Vec::new() }).map_err(Problem::internal)?;
        // `items` is the last member.
        body.truncate(body.len() - END.len());
        let begins = body.len();
        let mut from = 0;
        for ((&end, status), info) in self.ends.iter().zip(&snapshot.statuses).zip(&*self.infos) {
            if is_whole || filter.takes(info, *status) {
                if body.len() > begins {
                    body.push(b',');
                }
                body.extend_from_slice(&self.text[from..end]);
                body.extend_from_slice(quoted(*status).as_bytes());
                body.push(b'}');
            }
            from = end;
        }
        body.extend_from_slice(END);
        Ok(body.into())
    }
}

fn quoted(status: SeatStatus) -> &'static str {
    match status {
        SeatStatus::Available => "\"available\"",
        SeatStatus::Held => "\"held\"",
        SeatStatus::Sold => "\"sold\"",
    }
}

/// The current maps of one date.
#[derive(Default)]
struct Slot {
    current: Mutex<Option<Arc<DateMaps>>>,
    /// One renders at a time.
    rendering: tokio::sync::Mutex<()>,
    requested_at: AtomicU64,
}

impl Slot {
    fn current(&self) -> Option<Arc<DateMaps>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// See the module's opening.
pub(crate) struct SeatMaps {
    slots: Mutex<HashMap<DateId, Arc<Slot>>>,
    /// Counts requests: the clock of [`Slot::requested_at`].
    requests: AtomicU64,
}

impl SeatMaps {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::default(), requests: AtomicU64::new(0) }
    }

    /// The maps of `date` at `version` or a later one; `None` for a date without seats.
    pub(crate) async fn of(&self, view: &SeatView, date: DateId, version: u64) -> Result<Option<Arc<DateMaps>>, Problem> {
        let slot = self.slot(date);
        let fits = |maps: &Arc<DateMaps>| maps.version() >= version;
        if let Some(maps) = slot.current().filter(fits) {
            return Ok(Some(maps));
        }
        let _one_at_a_time = slot.rendering.lock().await;
        let current = slot.current();
        if let Some(maps) = current.as_ref().filter(|maps| fits(maps)) {
            return Ok(Some(maps.clone()));
        }
        let Some(snapshot) = view.date(date).await? else { return Ok(None) };
        let template = current.map(|maps| maps.template.clone()).filter(|template| Arc::ptr_eq(&template.infos, &snapshot.infos));
        let seats = snapshot.infos.len();
        let maps = off_thread(seats, move || DateMaps::new(template, snapshot)).await?;
        *slot.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(maps.clone());
        Ok(Some(maps))
    }

    fn slot(&self, date: DateId) -> Arc<Slot> {
        let requested_at = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= DATES_MAX && !slots.contains_key(&date) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.requested_at.load(Ordering::Relaxed)).map(|(date, _)| *date);
            oldest.and_then(|oldest| slots.remove(&oldest));
        }
        let slot = slots.entry(date).or_default();
        slot.requested_at.store(requested_at, Ordering::Relaxed);
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

    #[tokio::test]
    async fn rendered_map_is_what_serialising_would_give() {
        let infos: Arc<[SeatInfo]> = [info(1, None), info(2, Some("sold\"}")), info(3, Some("A"))].into();
        let statuses = vec![SeatStatus::Available, SeatStatus::Held, SeatStatus::Sold];
        let snapshot = SeatSnapshot { version: 7, infos, statuses };
        let grade = "R \"best\"";
        let expected = json!({"version": 7, "items": [
            {"number": 1, "section": null, "row": null, "grade": grade, "price": 100, "status": "available"},
            {"number": 2, "section": "sold\"}", "row": null, "grade": grade, "price": 100, "status": "held"},
            {"number": 3, "section": "A", "row": null, "grade": grade, "price": 100, "status": "sold"},
        ]});
        let maps = DateMaps::new(None, snapshot).unwrap();
        let shown = async |only_available, grade: Option<&str>| {
            let (body, _) = maps.map(Filter { only_available, grade: grade.map(str::to_owned) }, false).await.unwrap();
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        assert_eq!(shown(false, None).await, expected);
        assert_eq!(shown(false, Some(grade)).await, expected);
        for available in [shown(true, None).await, shown(true, Some(grade)).await] {
            assert_eq!(available, json!({"version": 7, "items": [expected["items"][0]]}));
        }
        assert_eq!(shown(false, Some("S")).await, json!({"version": 7, "items": []}));
        assert_eq!(maps.maps.lock().unwrap().len(), 4, "a grade that no seat has keeps nothing");
    }

    #[tokio::test]
    async fn equal_maps_are_one_copy() {
        let infos: Arc<[SeatInfo]> = (1..=100).map(|number| info(number, None)).collect();
        let maps = DateMaps::new(None, SeatSnapshot { version: 1, statuses: vec![SeatStatus::Available; infos.len()], infos }).unwrap();
        for only_available in [false, true] {
            for gzip in [false, true] {
                let read = async || maps.map(Filter { only_available, grade: None }, gzip).await.unwrap();
                let ((first, packed), (second, _)) = tokio::join!(read(), read());
                assert_eq!((first.as_ptr(), packed), (second.as_ptr(), gzip));
            }
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
    fn the_least_recently_requested_date_is_evicted() {
        let maps = SeatMaps::new();
        let date = |n: usize| DateId(uuid::Uuid::from_u128(n as u128));
        for n in 0..DATES_MAX {
            maps.slot(date(n));
        }
        maps.slot(date(0));
        maps.slot(date(DATES_MAX));
        let slots = maps.slots.lock().unwrap();
        assert_eq!(slots.len(), DATES_MAX);
        assert!(slots.contains_key(&date(0)) && !slots.contains_key(&date(1)));
    }
}
