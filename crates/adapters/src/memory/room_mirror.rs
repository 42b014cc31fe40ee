//! The admission that an operator set, and the mirror of a waiting room that is kept elsewhere.

use std::collections::hash_map::Entry;

use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark, RoomMirror, StoreError};

use super::MemoryStore;

#[async_trait]
impl RoomMirror for MemoryStore {
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError> {
        let mut tables = self.tables()?;
        let (kept, active) = tables.mirrored.entry(concert).or_default();
        *kept = RoomMark {
            last_place: kept.last_place.max(mark.last_place),
            promoted_to: kept.promoted_to.max(mark.promoted_to),
            served: kept.served.max(mark.served),
            expired: kept.expired.max(mark.expired),
            left: kept.left.max(mark.left),
        };
        active.extend(began.into_iter().map(|place| (place.entry, place)));
        for entry in ended {
            active.remove(&entry);
        }
        Ok(())
    }

    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError> {
        let tables = self.tables()?;
        Ok(tables.mirrored.get(&concert).map(|(mark, active)| (*mark, active.values().copied().collect())))
    }

    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError> {
        Ok(self.tables()?.admissions.get(&concert).copied())
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError> {
        let mut tables = self.tables()?;
        let own = tables.admissions.get(&concert).copied();
        if own.is_some_and(|own| own.admission != was) {
            return Ok(None);
        }
        let Some(record) = tables.concerts.get_mut(&concert) else { return Ok(None) };
        record.admission = to;
        tables.catalog_version += 1;
        let new = OwnAdmission { admission: to, version: own.map_or(0, |own| own.version) + 1 };
        tables.admissions.insert(concert, new);
        Ok(Some(new))
    }

    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError> {
        match self.tables()?.draws.entry(concert) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(free) => {
                free.insert(draw);
                Ok(true)
            }
        }
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError> {
        Ok(self.tables()?.draws.get(&concert).cloned())
    }
}
