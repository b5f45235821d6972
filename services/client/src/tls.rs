//! TLS of the client: whom it believes, and the handshake.
//!
//! Owns: trust. Must not know: what is said. There is no way to believe anybody: a server's certificate is always checked,
//! with its name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What is asked for by ALPN, so that no other service can be taken for an edge.
const ALPN: &[u8] = b"antar";

/// Whom a client believes. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with certificates cannot be read, or holds none.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system names nobody.
    #[error("this system trusts no certificate authority: name one by a file (--ca)")]
    NoAuthorities,
}

impl Tls {
    /// Believes the authorities that this system trusts.
    pub fn of_system() -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        // What of the system's store cannot be read is left out, as every program does.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() { Err(TrustError::NoAuthorities) } else { Ok(Self::with(roots)) }
    }

    /// Believes the certificates in a file (PEM) and nobody else: an authority's, or the server's own.
    pub fn of_file(file: &Path) -> Result<Self, TrustError> {
        let bad = |why: String| TrustError::File { file: file.to_owned(), why };
        let certificates =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut roots = RootCertStore::empty();
        for certificate in certificates.map_err(|error| bad(error.to_string()))? {
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it (PEM)".into()));
        }
        Ok(Self::with(roots))
    }

    fn with(roots: RootCertStore) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Self(Arc::new(config))
    }

    /// The handshake on a connection to `addr`, `HOST:PORT`, whose host has to be the name that the certificate is for.
    pub(crate) async fn handshake(&self, addr: &str, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "not a name that a certificate can be for")
        })?;
        TlsConnector::from(self.0.clone()).connect(name, socket).await
    }
}
