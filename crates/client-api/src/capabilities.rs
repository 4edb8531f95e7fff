//! What this server offers: `GET /_matrix/client/v3/capabilities`
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation)).

use myelin_events::SUPPORTED_ROOM_VERSIONS;
use myelin_http::{ApiError, JsonBody, Routes};
use ruma::{
    api::client::discovery::get_capabilities::v3::{
        AccountModerationCapability, Capabilities, ChangePasswordCapability, ForgetForcedUponLeaveCapability,
        GetLoginTokenCapability, ProfileFieldsCapability, Request, RoomVersionStability,
        RoomVersionsCapability, ThirdPartyIdChangesCapability,
    },
    profile::ProfileFieldName,
};
use serde_json::json;

use crate::{App, LocalUser};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get_capabilities);
}

#[expect(deprecated, reason = "clients from before Matrix 1.16 look at nothing else")]
async fn get_capabilities(app: App, user: LocalUser, _: Request) -> Result<JsonBody, ApiError> {
    let settings = &app.settings;
    let users = &settings.users;
    let available = SUPPORTED_ROOM_VERSIONS.map(|version| (version, RoomVersionStability::Stable));
    let mut capabilities = Capabilities::new();
    capabilities.room_versions =
        RoomVersionsCapability::new(settings.rooms.default_room_version.clone(), available.into());
    capabilities.set_displayname.enabled = users.enable_set_displayname;
    capabilities.set_avatar_url.enabled = users.enable_set_avatar_url;
    // There is no endpoint yet that would add or remove an address.
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    capabilities.get_login_token =
        GetLoginTokenCapability::new(settings.auth.login_via_existing_session.enabled);
    capabilities.profile_fields = Some(profile_fields(users));
    capabilities.forget_forced_upon_leave =
        ForgetForcedUponLeaveCapability::new(settings.rooms.forget_rooms_on_leave);
    let mut moderation = AccountModerationCapability::default();
    (moderation.lock, moderation.suspend) = (user.flags.is_admin, user.flags.is_admin);
    capabilities.account_moderation = moderation;
    let mut capabilities = json!({ "capabilities": capabilities });
    // ruma leaves it out where passwords can be changed, which is what its absence means; some clients look for it.
    capabilities["capabilities"]["m.change_password"] =
        json!(ChangePasswordCapability::new(settings.has_password_login()));
    Ok(JsonBody(capabilities.to_string().into()))
}

fn profile_fields(users: &myelin_config::Users) -> ProfileFieldsCapability {
    let mut capability = ProfileFieldsCapability::new(true);
    let closed = [
        (users.enable_set_displayname, ProfileFieldName::DisplayName),
        (users.enable_set_avatar_url, ProfileFieldName::AvatarUrl),
    ];
    let closed: Vec<_> = closed.into_iter().filter(|(open, _)| !open).map(|(_, field)| field).collect();
    capability.disallowed = Some(closed).filter(|closed| !closed.is_empty());
    capability
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::TestApp;

    #[tokio::test]
    async fn capabilities_follow_the_configuration() {
        let app = TestApp::with(|settings| {
            settings.users.enable_set_displayname = false;
            settings.rooms.default_room_version = ruma::RoomVersionId::V11;
        });
        let app = app.await;
        let alice = app.user("alice").await;
        let (status, body) = app.get("/_matrix/client/v3/capabilities", Some(&alice)).await;
        assert_eq!(status, 200);
        let found = &body["capabilities"];
        assert_eq!(found["m.room_versions"]["default"], "11");
        assert_eq!(
            found["m.room_versions"]["available"].as_object().map(|versions| versions.len()),
            Some(12)
        );
        assert_eq!(found["m.set_displayname"], json!({ "enabled": false }));
        assert_eq!(found["m.profile_fields"], json!({ "enabled": true, "disallowed": ["displayname"] }));
        assert_eq!(found["m.change_password"], json!({ "enabled": true }));
        assert_eq!(found["m.3pid_changes"], json!({ "enabled": false }));
    }
}
