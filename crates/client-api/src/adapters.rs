//! What crates of the domain ask of each other, joined here because neither knows the other.

use futures_util::future::BoxFuture;
use myelin_rooms::{MemberProfile, Profiles};
use ruma::UserId;

/// The profiles of accounts, for member events.
#[derive(Clone, Debug)]
pub struct AccountProfiles(pub myelin_accounts::Profiles);

impl Profiles for AccountProfiles {
    fn profile<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, MemberProfile> {
        Box::pin(async move {
            match self.0.of_member(user_id).await {
                Ok(profile) => MemberProfile {
                    displayname: profile.displayname,
                    avatar_url: profile.avatar_url.map(|url| url.to_string()),
                },
                Err(error) => {
                    // A name can be set again; a join that was asked for should not fail for the lack of it.
                    tracing::warn!(%user_id, %error, "a profile could not be read for a member event");
                    MemberProfile::default()
                }
            }
        })
    }
}
