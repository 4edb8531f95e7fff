//! [Server ACLs](https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms): which
//! servers may take part in a room.

use ruma::{ServerName, events::room::server_acl::RoomServerAclEventContent};
use serde::Deserialize;

use crate::{
    Pdu,
    lenient::{lenient, lenient_list},
};

/// The ACL of a room, read once.
#[derive(Debug, Clone)]
pub struct ServerAcl(Option<RoomServerAclEventContent>);

impl ServerAcl {
    /// The ACL in the `m.room.server_acl` event of a state; without one every server is allowed.
    ///
    /// Lists that are none are empty, as the specification says for those that are missing: without an `allow` list
    /// nobody is allowed.
    pub fn of(event: Option<&Pdu>) -> Self {
        Self(event.map(|event| {
            let content: Content = event.content_as().unwrap_or_default();
            RoomServerAclEventContent::new(
                content.allow_ip_literals.unwrap_or(true),
                content.allow,
                content.deny,
            )
        }))
    }

    /// Whether a server may take part. Its port doesn't matter.
    pub fn allows(&self, server_name: &ServerName) -> bool {
        self.0.as_ref().is_none_or(|acl| acl.is_allowed(server_name))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    #[serde(deserialize_with = "lenient")]
    allow_ip_literals: Option<bool>,
    #[serde(deserialize_with = "lenient_list")]
    allow: Vec<String>,
    #[serde(deserialize_with = "lenient_list")]
    deny: Vec<String>,
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::test_events::pdu_with_content;

    #[track_caller]
    fn check(content: &str, server_name: &str, expected: bool) {
        let event = pdu_with_content(&RoomVersionId::V11, "m.room.server_acl", content);
        let server_name = <&ServerName>::try_from(server_name).unwrap();
        assert_eq!(ServerAcl::of(Some(&event)).allows(server_name), expected, "{content} {server_name}");
    }

    #[test]
    fn lists_are_evaluated_in_the_order_of_the_specification() {
        let deny_evil = r#"{"allow":["*"],"deny":["*.evil.com","evil.com"]}"#;
        check(deny_evil, "good.com", true);
        check(deny_evil, "evil.com", false);
        check(deny_evil, "EVIL.com:8448", false);
        check(deny_evil, "very.evil.com", false);
        check(deny_evil, "notevil.com", true);
        check(r#"{"allow":["h?st.com"]}"#, "host.com", true);
        check(r#"{"allow":["h?st.com"]}"#, "other.com", false);
    }

    #[test]
    fn ip_literals_can_be_refused() {
        for server_name in ["1.2.3.4", "1.2.3.4:80", "[::1]:80"] {
            check(r#"{"allow":["*"],"allow_ip_literals":false}"#, server_name, false);
            check(r#"{"allow":["*"],"allow_ip_literals":"false"}"#, server_name, true);
            check(r#"{"allow":["*"]}"#, server_name, true);
        }
    }

    #[test]
    fn an_acl_without_an_allow_list_shuts_everybody_out() {
        check("{}", "host.com", false);
        check(r#"{"allow":"*"}"#, "host.com", false);
        check(r#"{"allow":[5,"*"]}"#, "host.com", true);
        assert!(ServerAcl::of(None).allows(ruma::server_name!("host.com")));
    }
}
