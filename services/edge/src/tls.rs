//! TLS of an edge: the certificate, how it is read again, and handshakes.
//!
//! Owns: which certificate is shown, limits of a handshake. Must not know: lines or HTTP.
//!
//! A certificate is looked up for each handshake, so another one is shown from one moment to the next, and connections that
//! are there keep theirs. Files that cannot be used are logged, and what was shown before is shown on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antar_proto::ErrorCode;
use antar_proto::json::write_frame;
use antar_proto::reply::Failure;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::transport::{Tls, Transport};

/// How long a handshake may take, unless a connection may not even stay for that long without logging in.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How often the files are looked at.
pub const RELOAD_CHECK: Duration = Duration::from_secs(2);
/// What a client of the line protocol may ask for by ALPN; a browser that was lured here asks for something else.
pub(crate) const ALPN_COMMAND: &[u8] = b"antar";
/// What TLS records of a handshake begin with; no command and no request of HTTP does.
const HANDSHAKE_BYTE: u8 = 0x16;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is not what it should be.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is not that of the certificate.
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The certificate that is shown. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Certificates(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Arc<CertifiedKey>>,
    /// What the files looked like when they were last read, usable or not.
    stamp: Mutex<Stamp>,
}

/// Tells whether a file may have changed: device, inode, length, and time of change in seconds and nanoseconds.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Certificates {
    /// Reads a certificate with its chain, and its key, both PEM.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let stamp = stamp(certificate, key);
        let current = Mutex::new(Arc::new(load(certificate, key)?));
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self(Arc::new(Shown { certificate, key, current, stamp: Mutex::new(stamp) })))
    }

    /// Reads the files again if they may have changed, or in any case. What cannot be used is logged, once for each change.
    pub fn reload(&self, in_any_case: bool) {
        let Shown { certificate, key, current, stamp: known } = &*self.0;
        let now = stamp(certificate, key);
        let before = std::mem::replace(&mut *known.lock().unwrap_or_else(PoisonError::into_inner), now);
        if before == now && !in_any_case {
            return;
        }
        match load(certificate, key) {
            Ok(loaded) => {
                *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                tracing::info!(certificate = %certificate.display(), "the certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate cannot be used, the one before is shown on");
            }
        }
    }

    /// Takes handshakes of clients that speak one of `protocols` or do not say.
    pub(crate) fn acceptor(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(self.0.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// `ring`, and not what the process has chosen: nobody chooses.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|file| {
        let data = fs::metadata(file).ok()?;
        Some((data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    })
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let bad = |file: &Path, why: String| CertificateError::File { file: file.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| bad(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificate, "there is no certificate in it (PEM)".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        rustls::Error::InvalidCertificate(_) => bad(certificate, error.to_string()),
        other => bad(key, other.to_string()),
    })
}

/// Whether a connection begins with TLS. Waits for its first byte; its end is an error.
pub(crate) async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == HANDSHAKE_BYTE),
    }
}

/// The handshake of a client of the line protocol. Whoever speaks plain text here is told so, in plain text.
pub(crate) async fn handshake(acceptor: &TlsAcceptor, mut stream: TcpStream) -> io::Result<Transport> {
    if !begins_with_tls(&stream).await? {
        let mut reply = Vec::new();
        let failure = Failure::new(None, ErrorCode::BadRequest);
        write_frame(&mut reply, &failure.detail("this port takes TLS only: antar chat --tls"));
        stream.write_all(&reply).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain text where TLS is spoken"));
    }
    let stream: TlsStream<TcpStream> = acceptor.accept(stream).await?;
    let (socket, session) = stream.into_inner();
    Ok(Transport::Tls(Box::new(Tls::new(socket, session)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a new certificate and its key into `dir`; what it is for is its only difference.
    fn write(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (certificate, key) = (dir.join("tls.pem"), dir.join("tls.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.0.current.lock().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_new_certificate_is_shown_and_what_cannot_be_used_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = write(dir.path(), "one.example");
        let certificates = Certificates::read(&certificate, &key).unwrap();
        let first = shown(&certificates);
        let old_key = fs::read(&key).unwrap();
        write(dir.path(), "two.example");
        certificates.reload(false);
        let second = shown(&certificates);
        assert_ne!(first, second);
        // Half of a renewal: the certificate's key is not there yet.
        fs::write(&key, old_key).unwrap();
        certificates.reload(true);
        assert_eq!(shown(&certificates), second);
        fs::write(&certificate, "no certificate").unwrap();
        certificates.reload(true);
        fs::remove_file(&certificate).unwrap();
        certificates.reload(true);
        assert_eq!(shown(&certificates), second);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = write(dir.path(), "one.example");
        let told =
            |certificate: &Path, key: &Path| Certificates::read(certificate, key).unwrap_err().to_string();
        let nowhere = dir.path().join("nowhere.pem");
        assert!(told(&nowhere, &key).contains("nowhere.pem"));
        assert!(told(&certificate, &nowhere).contains("nowhere.pem"));
        // Each in the other's place.
        assert!(told(&key, &key).contains("there is no certificate in it"));
        assert!(told(&certificate, &certificate).contains("tls.pem"));
        let other = tempfile::tempdir().unwrap();
        let (_, other_key) = write(other.path(), "two.example");
        assert!(told(&certificate, &other_key).contains("is not that of the certificate"));
    }
}
