//! Uploads and downloads.

use std::path::PathBuf;

use crate::{
    section::{all_defaulted, section},
    value::ByteSize,
};

section! {
    /// Media.
    Media {
        /// Whether this process serves media; off on the main process when `media_repository` workers do.
        enable_media_repo: bool = true,
        /// The folder where media are kept.
        media_store_path: PathBuf = "media_store",
        /// The largest upload.
        max_upload_size: ByteSize = 50M,
        /// Accepted for Synapse's sake: the background jobs of media find their process by themselves.
        media_instance_running_background_jobs: Option<String> = null,
    }
}

all_defaulted!(Media);
