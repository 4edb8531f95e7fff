//! A user's devices ([spec](https://spec.matrix.org/v1.19/client-server-api/#device-management)), as far as they are
//! sessions.

use myelin_storage::{
    GenericClient, Result,
    accounts::{devices, sessions, threepids, users},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{Accounts, Device, Login, Restriction, SessionsEnded, Threepid};

/// A device's name has at most so many characters.
pub(crate) const MAX_DISPLAY_NAME_LEN: usize = 100;

impl Accounts {
    /// All devices of a user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn devices(&self, user: &UserId) -> Result<Vec<Device>> {
        devices::list_devices(&self.db().await?, user).await
    }

    /// One device.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<Device>> {
        devices::get_device(&self.db().await?, user, device).await
    }

    /// Renames a device, cutting names that are too long; `false` if there is no such device.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rename_device(&self, user: &UserId, device: &DeviceId, name: Option<&str>) -> Result<bool> {
        let name = name.map(|name| name.chars().take(MAX_DISPLAY_NAME_LEN).collect::<String>());
        devices::set_display_name(&self.db().await?, user, device, name.as_deref()).await
    }

    /// Ends the sessions of those `devices` that exist, in the caller's transaction, so that what else belongs to a
    /// device goes with it. After the commit: [`Accounts::forget_tokens`] with what this returns.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_devices_in(
        db: &impl GenericClient,
        user: &UserId,
        devices: &[OwnedDeviceId],
    ) -> Result<SessionsEnded> {
        let devices: Vec<&DeviceId> = devices.iter().map(AsRef::as_ref).collect();
        sessions::delete_devices(db, user, &devices).await
    }

    /// As [`Accounts::delete_devices_in`], for all devices of the user but `keep`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_all_devices_in(
        db: &impl GenericClient,
        user: &UserId,
        keep: Option<&DeviceId>,
    ) -> Result<SessionsEnded> {
        sessions::delete_all_devices(db, user, keep).await
    }

    /// Ends the sessions of those `devices` that exist. Their keys and messages are not touched: see
    /// [`Accounts::delete_devices_in`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_devices(&self, user: &UserId, devices: &[OwnedDeviceId]) -> Result<SessionsEnded> {
        let ended = Self::delete_devices_in(&self.db().await?, user, devices).await?;
        self.forget_tokens(&ended.revoked).await;
        Ok(ended)
    }

    /// Ends all sessions of a user but that of `keep`. Keys and messages are not touched: see
    /// [`Accounts::delete_all_devices_in`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_all_devices(&self, user: &UserId, keep: Option<&DeviceId>) -> Result<SessionsEnded> {
        let ended = Self::delete_all_devices_in(&self.db().await?, user, keep).await?;
        self.forget_tokens(&ended.revoked).await;
        Ok(ended)
    }

    /// Revokes an access token that belongs to no device.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_access_token(&self, login: &Login) -> Result<()> {
        sessions::delete_access_token(&self.db().await?, login.token).await?;
        self.forget_tokens(&[login.token]).await;
        Ok(())
    }

    /// Locks or suspends a user, or lifts that; `false` if there is none or they are deactivated.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set_restriction(
        &self,
        user: &UserId,
        restriction: Restriction,
        value: bool,
    ) -> Result<bool> {
        let touched = users::set_restriction(&self.db().await?, user, restriction, value).await?;
        self.forget_tokens(touched.as_deref().unwrap_or_default()).await;
        Ok(touched.is_some())
    }

    /// The e-mail addresses and phone numbers of a user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn threepids(&self, user: &UserId) -> Result<Vec<Threepid>> {
        threepids::list_threepids(&self.db().await?, user).await
    }

    /// Whose e-mail address or phone number it is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn threepid_owner(&self, medium: &str, address: &str) -> Result<Option<OwnedUserId>> {
        threepids::get_owner(&self.db().await?, medium, address).await
    }
}
