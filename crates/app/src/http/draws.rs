//! Draws that were read lately.
//!
//! A draw that has been made never changes and stays here, so that neither a page nor its hash costs the room anything.
//! Before that it is read again after [`FRESH`].
//!
//! *Bounds.* [`DRAWS_MAX`] draws; at one more the cache is emptied, and each is read again when it is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boxoffice_domain::ConcertId;
use boxoffice_domain::draw::{self, Hash32};
use boxoffice_domain::waiting::DrawView as Draw;

/// How old a shown draw may be before it is made.
const FRESH: Duration = Duration::from_millis(500);
const DRAWS_MAX: usize = 32;

pub(crate) struct CachedDraw {
    pub(crate) draw: Draw,
    pub(crate) entries_hash: Option<Hash32>,
    read_at: Instant,
}

/// See the module's opening.
#[derive(Default)]
pub(crate) struct Draws(Mutex<HashMap<ConcertId, Arc<CachedDraw>>>);

impl Draws {
    /// `None`: it was not read, or too long ago.
    pub(crate) fn get(&self, concert: ConcertId) -> Option<Arc<CachedDraw>> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&concert).cloned();
        cached.filter(|cached| cached.draw.seed.is_some() || cached.read_at.elapsed() < FRESH)
    }

    /// Keeps a draw that was read just now.
    pub(crate) fn keep(&self, concert: ConcertId, draw: Draw) -> Arc<CachedDraw> {
        let entries_hash = draw.keys.as_deref().map(draw::entries_hash);
        let cached = Arc::new(CachedDraw { draw, entries_hash, read_at: Instant::now() });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DRAWS_MAX {
            all.clear();
        }
        all.insert(concert, cached.clone());
        cached
    }
}
