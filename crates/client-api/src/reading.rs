//! What the endpoints that read rooms have in common.

use myelin_events::raw_json::ObjectWriter;
use myelin_http::{ApiError, JsonBody};
use myelin_rooms::read::{PaginationToken, Viewer};
use ruma::UInt;

use crate::{App, GuestOrUser, error::api};

/// Whoever is logged in, as one who looks at rooms.
pub(crate) async fn viewer(app: &App, user: &GuestOrUser) -> Result<Viewer, ApiError> {
    let ignored = app.account_data.ignored_users(&user.user_id).await.map_err(api)?;
    Ok(Viewer { user_id: user.user_id.clone(), device_id: user.device_id.clone(), ignored })
}

/// A token of the query. Some clients send an empty one for none.
pub(crate) fn token(text: Option<&str>) -> Result<Option<PaginationToken>, ApiError> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ApiError::invalid_param("Unknown pagination token")),
    }
}

/// How many a client wants.
pub(crate) fn limit(limit: UInt) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// An answer that is written field by field.
pub(crate) fn answer(bytes: usize, write: impl FnOnce(&mut ObjectWriter<'_>)) -> JsonBody {
    let mut json = String::with_capacity(bytes + 256);
    let mut object = ObjectWriter::new(&mut json);
    write(&mut object);
    object.end();
    JsonBody(json.into())
}
