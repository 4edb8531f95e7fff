//! Devices, end-to-end keys, to-device messages, cross-signing, key backup.
