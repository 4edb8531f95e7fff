//! What can be wrong with keys.

use myelin_replication::WriteError;
use myelin_storage::StorageError;
use ruma::OwnedOneTimeKeyId;

/// Why keys were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The keys don't have the form that they must have.
    #[error("{0}")]
    Malformed(String),
    /// The keys say that they are another user's or device's.
    #[error("The keys belong to another user or device")]
    NotYours,
    /// The device was deleted a moment ago.
    #[error("The device does not exist any more")]
    UnknownDevice,
    /// There already is a one-time key of this id, and it is another key. Clients that see this have lost track of
    /// their keys.
    #[error("One time key {0} already exists")]
    OneTimeKeyExists(OwnedOneTimeKeyId),
    /// The device has as many one-time keys as it may have.
    #[error("The device has too many one-time keys")]
    TooManyOneTimeKeys,
    /// A key lacks a signature that it needs, or the signature is wrong.
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// Self-signing and user-signing keys are worth nothing without a master key.
    #[error("There is no master key")]
    NoMasterKey,
    /// A device of the user has the public key as its id.
    #[error("The key's id is in use by a device")]
    KeyIdInUse,
    /// The user has cross-signing keys, and replacing them needs
    /// [proof of who the user is](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload).
    #[error("Replacing cross-signing keys requires user-interactive authentication")]
    AuthenticationRequired,
    /// Nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
