//! `generate-signing-key`.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use myelin_events::keys::ServerSigningKey;

/// Where the key goes.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The file to write; without it, the key goes to standard output.
    #[arg(short, long)]
    output_file: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "the key is what was asked for")]
pub(crate) fn generate(arguments: &Generate) -> anyhow::Result<()> {
    match &arguments.output_file {
        Some(path) => write_new_key(path),
        None => {
            print!("{}", new_key().to_file());
            Ok(())
        }
    }
}

/// Writes a new key to a file that only its owner may read. A file that is there already stays.
pub(crate) fn write_new_key(path: &Path) -> anyhow::Result<()> {
    write_secret(path, &new_key().to_file())
}

/// Writes a file that only its owner may read, unless it is there already.
pub(crate) fn write_secret(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}, which must not be there yet", path.display()))?;
    file.write_all(content.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

fn new_key() -> ServerSigningKey {
    ServerSigningKey::generate(&mut rand::rng())
}
