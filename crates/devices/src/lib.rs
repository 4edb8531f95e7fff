//! End-to-end encryption as far as the server has a part in it: it keeps public keys, passes messages on between
//! devices, tells who has to look at whose keys again, and stores backups that it can't read.
//!
//! - [`Devices`]: device keys, one-time keys, cross-signing, and the stream of changed device lists.
//! - [`ToDevice`]: messages to devices, kept until the device has confirmed them.
//! - [`KeyBackups`]: encrypted copies of room keys.
//!
//! What is not here: sessions, access tokens and the devices themselves, which are `myelin-accounts`', and who shares
//! a room with whom, which callers pass in. Devices of other servers are unknown until there is federation.
//!
//! Start with [`Devices`].

mod cross_signing;
mod device_keys;
mod device_lists;
mod devices;
mod error;
mod key_backups;
mod key_cache;
mod key_counts;
mod key_query;
mod key_signatures;
mod one_time_keys;
#[cfg(test)]
mod properties;
mod signed_json;
#[cfg(test)]
mod speed;
mod stream;
#[cfg(test)]
mod test_support;
mod to_device;

pub use cross_signing::SigningKeysUpload;
pub use device_keys::KeysUpload;
pub use devices::{Devices, TransactionWork};
pub use error::KeyError;
pub use key_backups::{BackupError, BackupInfo, BackupKey, BackupState, KeyBackups, KeySelection};
pub use key_query::QueriedKeys;
pub use key_signatures::SignatureFailure;
pub use myelin_storage::one_time_keys::KeyCounts;
pub use one_time_keys::{ClaimedKeys, WantedKeys};
pub use stream::{DeviceListRow, DeviceListStream, SenderTransaction, ToDeviceRow, ToDeviceStream};
pub use to_device::{Inbox, SendToDevice, ToDevice, ToDeviceError, ToDeviceMessage};
