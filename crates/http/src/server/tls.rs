//! Certificates that can be replaced while connections come in.

use std::{fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::listener::TlsFiles;

/// A certificate can't be used. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing, unreadable or not PEM.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls_pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{}: there is no certificate in this file", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key don't fit together, or are of a kind that we can't use.
    #[error("{} and {}: {error}", certificate.display(), private_key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
        /// What is wrong with them.
        error: rustls::Error,
    },
}

/// The certificate of a listener.
pub(super) struct Certificate {
    files: TlsFiles,
    current: Arc<Current>,
}

struct Current(ArcSwap<CertifiedKey>);

impl Certificate {
    pub(super) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(files)?)));
        Ok(Self { files: files.clone(), current })
    }

    pub(super) fn reload(&self) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// The configuration that always shows the current certificate.
    pub(super) fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| self.files.unusable(error))?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.current.clone()))
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::File { path: files.certificate.clone(), error })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(|error| TlsError::File { path: files.private_key.clone(), error })?;
    CertifiedKey::from_der(certificates, key, &ring::default_provider())
        .map_err(|error| files.unusable(error))
}

impl TlsFiles {
    fn unusable(&self, error: rustls::Error) -> TlsError {
        TlsError::Unusable {
            certificate: self.certificate.clone(),
            private_key: self.private_key.clone(),
            error,
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(..)")
    }
}
