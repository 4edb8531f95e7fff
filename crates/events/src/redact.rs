//! The [redaction algorithm](https://spec.matrix.org/v1.19/client-server-api/#redactions) on whole events.

use crate::{MalformedEvent, Pdu};

/// The event without what a redaction takes away, as its room version says.
///
/// It keeps its id and its signatures stay valid. What clients get beside it, `unsigned.redacted_because`, is for
/// the caller to add: see [`Unsigned`](crate::client_format::Unsigned).
///
/// # Errors
///
/// If the stored event breaks the rules of its room version, which no event does that was built or checked here.
pub fn redact(pdu: &Pdu) -> Result<Pdu, MalformedEvent> {
    let mut object = pdu.object()?;
    object.redact(&pdu.rules().redaction)?;
    let redacted =
        Pdu::from_stored(pdu.room_id().clone(), pdu.event_id().clone(), object.to_json(), pdu.rules())?;
    Ok(redacted.with_rejected(pdu.is_rejected()))
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::{event_id_of, test_events::pdu_with_content};

    #[track_caller]
    fn check(version: RoomVersionId, event_type: &str, content: &str, expected: &str) {
        let rules = crate::rules(&version).unwrap();
        let pdu = pdu_with_content(&version, event_type, content);
        let redacted = redact(&pdu).unwrap();
        assert_eq!(redacted.content(), expected, "{event_type} in room version {version}");
        assert_eq!(event_id_of(redacted.json(), rules).unwrap(), *pdu.event_id());
        assert_eq!(redact(&redacted).unwrap().json(), redacted.json());
    }

    #[test]
    fn a_damaged_event_is_an_error_and_no_panic() {
        let pdu = pdu_with_content(&RoomVersionId::V11, "m.room.message", r#"{"body":"x"}"#);
        let json = pdu.json().replace(r#""x""#, "1.5");
        let damaged =
            Pdu::from_stored(pdu.room_id().clone(), pdu.event_id().clone(), json, pdu.rules()).unwrap();
        redact(&damaged).unwrap_err();
        damaged.reference_hash().unwrap_err();
    }

    #[test]
    fn each_room_version_keeps_what_its_authorization_needs() {
        use RoomVersionId::{V1, V5, V6, V8, V9, V10, V11, V12};
        check(V1, "m.room.message", r#"{"body":"secret"}"#, "{}");
        check(V12, "m.room.message", r#"{"body":"secret"}"#, "{}");
        check(V5, "m.room.aliases", r##"{"aliases":["#a:x"]}"##, r##"{"aliases":["#a:x"]}"##);
        check(V6, "m.room.aliases", r##"{"aliases":["#a:x"]}"##, "{}");
        let join_rules = r#"{"allow":[],"join_rule":"restricted"}"#;
        check(V6, "m.room.join_rules", join_rules, r#"{"join_rule":"restricted"}"#);
        check(V8, "m.room.join_rules", join_rules, join_rules);
        let member = r#"{"displayname":"A","join_authorised_via_users_server":"@a:x","membership":"join"}"#;
        check(V8, "m.room.member", member, r#"{"membership":"join"}"#);
        check(
            V9,
            "m.room.member",
            member,
            r#"{"join_authorised_via_users_server":"@a:x","membership":"join"}"#,
        );
        let levels = r#"{"ban":50,"invite":0,"notifications":{"room":50},"users":{}}"#;
        check(V10, "m.room.power_levels", levels, r#"{"ban":50,"users":{}}"#);
        check(V11, "m.room.power_levels", levels, r#"{"ban":50,"invite":0,"users":{}}"#);
        check(V10, "m.room.redaction", r#"{"reason":"spam","redacts":"$x"}"#, "{}");
        check(V11, "m.room.redaction", r#"{"reason":"spam","redacts":"$x"}"#, r#"{"redacts":"$x"}"#);
    }
}
