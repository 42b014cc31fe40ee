//! Concerts, dates and rooms by id. A concert that another instance has just imported is looked up in the store before
//! it is 404, and its room is opened here.

use std::sync::Arc;

use boxoffice_domain::{ConcertId, DateId};
use boxoffice_ports::{ConcertRow, DateRow, RoomError};

use super::problem::Problem;
use super::state::App;

pub(crate) async fn concert(app: &App, id: ConcertId) -> Result<Arc<ConcertRow>, Problem> {
    app.catalogue.find_concert(id).await?.ok_or_else(Problem::not_found)
}

/// A date with its concert.
pub(crate) async fn date(app: &App, id: DateId) -> Result<(Arc<ConcertRow>, DateRow), Problem> {
    app.catalogue.find_date(id).await?.ok_or_else(Problem::not_found)
}

/// Calls a concert's room, which is opened first if it is not open here.
pub(crate) async fn with_room<T>(app: &App, id: ConcertId, call: impl AsyncFn() -> Result<T, RoomError>) -> Result<T, RoomError> {
    app.catalogue.with_room(&*app.room, id, || call()).await
}
