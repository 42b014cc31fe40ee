//! The draw among buyers who join before the sale: everything that is needed to recompute every place. Public.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::ConcertId;
use boxoffice_domain::draw::{self, Hash32};
use boxoffice_domain::waiting::DrawView as Draw;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::draws::CachedDraw;
use super::hex::hex;
use super::lookup;
use super::params::{self, Cursor, Id, Paging, Query};
use super::problem::Problem;
use super::state::App;
use super::views::List;

/// Hashes are in lower-case hex.
#[derive(Serialize, ToSchema)]
#[schema(as = Draw)]
pub(crate) struct DrawView<'a> {
    /// SHA-256 of the seed.
    commitment: String,
    /// How the order is made.
    #[schema(example = "sha256-v1")]
    algorithm: &'static str,
    /// People on the list; null before the sale starts and closes it, like all that follows.
    entries: Option<usize>,
    /// SHA-256 of all draw keys, ascending, one behind the other.
    entries_hash: Option<String>,
    /// Places that were given out before: the first one drawn has the next.
    base: Option<u64>,
    /// What was mixed into the seed; null without a beacon.
    beacon: Option<&'a str>,
    /// Null until the draw is made.
    seed: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DrawEntry)]
pub(crate) struct DrawEntryView {
    /// SHA-256 of the ids of user and concert, as 16 bytes each.
    draw_key: String,
}

/// A concert's draw, read from its room if the cached one is too old.
async fn draw_of(app: &App, concert: ConcertId) -> Result<Arc<CachedDraw>, Problem> {
    if let Some(cached) = app.draws.get(concert) {
        return Ok(cached);
    }
    let draw = lookup::with_room(app, concert, async || app.room.draw(concert).await).await?;
    Ok(app.draws.keep(concert, draw.ok_or_else(Problem::not_found)?))
}

/// The draw: the commitment at once, the closed list's hash from the start of the sale on, then the seed.
#[utoipa::path(get, path = "/api/v1/concerts/{id}/draw", tag = "concerts",
    responses((status = 200, description = "What it is made by", body = DrawView)))]
pub(crate) async fn get(id: Id<ConcertId>, app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let cached = draw_of(&app, id.0).await?;
    let Draw { commitment, base, keys, beacon, seed } = &cached.draw;
    answer::ok(&DrawView {
        commitment: hex(commitment),
        algorithm: draw::ALGORITHM,
        entries: keys.as_ref().map(Vec::len),
        entries_hash: cached.entries_hash.as_ref().map(hex),
        base: keys.as_ref().map(|_| *base),
        beacon: beacon.as_deref(),
        seed: seed.as_ref().map(hex),
    })
}

/// Where a page ended.
struct DrawKey(Hash32);

impl Cursor for DrawKey {
    const TAG: u8 = b'k';

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// The closed list, draw keys ascending. Empty before the sale starts.
#[utoipa::path(get, path = "/api/v1/concerts/{id}/draw/entries", tag = "concerts",
    responses((status = 200, description = "A page of the list", body = List<DrawEntryView>)))]
pub(crate) async fn entries(id: Id<ConcertId>, app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<DrawKey>::of(&request)?;
    let cached = draw_of(&app, id.0).await?;
    let keys = cached.draw.keys.as_deref().unwrap_or_default();
    let rest = &keys[paging.after.map_or(0, |after| keys.partition_point(|key| *key <= after.0))..];
    let page = &rest[..rest.len().min(paging.limit as usize)];
    let last = page.last().filter(|_| rest.len() > page.len());
    answer::ok(&List {
        items: page.iter().map(|key| DrawEntryView { draw_key: hex(key) }).collect(),
        next_cursor: last.map(|key| params::encode(&DrawKey(*key))),
    })
}
