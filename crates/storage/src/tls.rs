//! TLS to PostgreSQL and Redis, with libpq's meaning of the options `sslmode`, `sslrootcert`, `sslcert` and `sslkey`
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{Error as PemError, PemObject},
    },
};

/// What is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    /// Nothing: whoever sits in between can read along (`prefer`, `require`).
    Any,
    /// A trusted authority signed it (`verify-ca`).
    Trusted,
    /// The same, for the host that we connect to (`verify-full`).
    TrustedForHost,
}

/// The authorities whose word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the operating system trusts (`sslrootcert=system`).
    System,
    /// Those of a PEM file.
    File(PathBuf),
    /// Those of the PEM files of a folder; what else is there is left alone.
    Folder(PathBuf),
}

/// How to speak TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// What is asked of the server's certificate.
    pub server_certificate: ServerCertificate,
    /// Needed unless any certificate will do.
    pub authorities: Option<Authorities>,
    /// Our own certificate and its key, for servers that ask for one: PEM files.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The options can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file can't be read, or has not in it what it should.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PemError,
    },
    /// There is nobody to trust.
    #[error("certificates can't be verified without `sslrootcert`: a file, or `system`")]
    NoAuthorities,
    /// A certificate or key is no good.
    #[error(transparent)]
    Rustls(#[from] RustlsError),
    /// The authorities make no verifier.
    #[error("sslrootcert: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl TlsOptions {
    /// The settings for connections; reads the files.
    ///
    /// # Errors
    /// If a file can't be read or used.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some((certificate, key)) = &self.client_certificate else {
            return Ok(builder.with_no_client_auth());
        };
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File { path: key.clone(), error })?;
        Ok(builder.with_client_auth_cert(certificates(certificate)?, key)?)
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let trusted = match &self.authorities {
            // libpq: with authorities at hand, `require` means `verify-ca`.
            None if self.server_certificate == ServerCertificate::Any => None,
            None => return Err(TlsError::NoAuthorities),
            Some(authorities) => {
                let roots = Arc::new(authorities.roots()?);
                Some(WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?)
            }
        };
        match trusted {
            Some(trusted) if self.server_certificate == ServerCertificate::TrustedForHost => Ok(trusted),
            trusted => Ok(Arc::new(Lenient { trusted, provider: provider.clone() })),
        }
    }
}

impl Authorities {
    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)
            }
            Self::File(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
            }
            Self::Folder(path) => {
                let unreadable = |error| TlsError::File { path: path.clone(), error: PemError::Io(error) };
                for entry in std::fs::read_dir(path).map_err(unreadable)? {
                    let file = entry.map_err(unreadable)?.path();
                    roots.add_parsable_certificates(certificates(&file).unwrap_or_default());
                }
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(|certificates| {
        let certificates: Vec<_> = certificates.collect::<Result<_, _>>()?;
        if certificates.is_empty() { Err(PemError::NoItemsFound) } else { Ok(certificates) }
    });
    read.map_err(|error| TlsError::File { path: path.clone(), error })
}

/// Takes a certificate that is for another host, or any at all.
#[derive(Debug)]
struct Lenient {
    /// Whose word counts; `None`: anybody's.
    trusted: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        match trusted.verify_server_cert(certificate, intermediates, server_name, ocsp_response, now) {
            Err(RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
