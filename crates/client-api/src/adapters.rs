//! What crates of the domain ask of each other, joined here because neither knows the other.

use futures_util::future::BoxFuture;
use myelin_rooms::{MemberProfile, Profiles, ShowNumber, ToShow};
use myelin_storage::StorageError;
use ruma::{OwnedUserId, UserId};

/// The profiles of accounts, for member events.
#[derive(Clone, Debug)]
pub struct AccountProfiles(pub myelin_accounts::Profiles);

impl Profiles for AccountProfiles {
    fn profile<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, MemberProfile> {
        Box::pin(async move {
            match self.0.of_member(user_id).await {
                Ok(profile) => in_rooms(profile),
                Err(error) => {
                    // A name can be set again; a join that was asked for should not fail for the lack of it.
                    tracing::warn!(%user_id, %error, "a profile could not be read for a member event");
                    MemberProfile::default()
                }
            }
        })
    }

    fn to_show<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<ToShow, StorageError>> {
        Box::pin(async move {
            let (profile, change) = self.0.to_show(user_id).await?;
            Ok(ToShow { profile: in_rooms(profile), change })
        })
    }

    fn note_shown<'a>(
        &'a self,
        user_id: &'a UserId,
        change: ShowNumber,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.0.note_shown(user_id, change))
    }

    fn list_to_show(&self) -> BoxFuture<'_, Result<Vec<(OwnedUserId, ShowNumber)>, StorageError>> {
        Box::pin(self.0.list_to_show())
    }
}

fn in_rooms(profile: myelin_accounts::MemberProfile) -> MemberProfile {
    MemberProfile {
        displayname: profile.displayname,
        avatar_url: profile.avatar_url.map(|url| url.to_string()),
    }
}
