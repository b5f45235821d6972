//! TLS for tests: certificates, and a tunnel that lets every client of plain text speak over TLS.
//!
//! Owns: both. Must not know: the program. The other side of a handshake is the library that the program uses too; what
//! matters is what lies in between.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for this machine that signs itself, and its key, in two files.
pub(crate) struct Certificate(TempDir);

impl Certificate {
    /// Makes one.
    pub(crate) fn new() -> Self {
        let made = Self(TempDir::new().expect("a temporary directory"));
        made.renew();
        made
    }

    /// Puts another one into the same files, each from one moment to the next.
    pub(crate) fn renew(&self) {
        let names = ["127.0.0.1", "localhost"].map(String::from);
        let made = rcgen::generate_simple_self_signed(names).expect("these can be certified");
        let put = |file: PathBuf, text: String| {
            let new = file.with_extension("new");
            fs::write(&new, text).expect("writable");
            fs::rename(new, file).expect("the same directory");
        };
        put(self.file(), made.cert.pem());
        put(self.key_file(), made.signing_key.serialize_pem());
    }

    /// The certificate, which is its own authority.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("tls.pem")
    }

    /// Its private key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.0.path().join("tls.key")
    }

    /// A copy that stays as it is when the certificate is renewed.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        let copy = self.0.path().join(name);
        fs::copy(self.file(), &copy).expect("writable");
        copy
    }
}

/// Connects over TLS, believing `authority` only.
pub(crate) async fn connect(addr: SocketAddr, authority: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(authority).expect("readable");
    for certificate in certificates {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("ring knows them").with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(addr).await?;
    let name = ServerName::from(addr.ip());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// A port of this machine behind which there is TLS. It ends when this is dropped, with all that goes through it.
pub(crate) struct Tunnel {
    addr: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Tunnel {
    /// Opens one to `server`. A connection whose handshake fails is closed.
    pub(crate) fn open(server: SocketAddr, authority: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be had");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let authority = authority.to_owned();
        runtime.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let authority = authority.clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = connect(server, &authority).await {
                        // The end of one way is handed on, and the other goes on.
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { addr, _runtime: runtime }
    }

    /// Where plain text goes in.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}
