//! TLS on the way to a gateway: its certificate, and a proxy for clients that speak none.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64ct::{Base64, Encoding};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate with its key, and the authority that signed it.
pub struct Identity {
    /// As PEM, like its key.
    certificate: String,
    key: String,
    authority: CertificateDer<'static>,
    host: String,
}

impl Identity {
    /// One for this host.
    pub fn of(host: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([host.to_owned()])?.signed_by(&key, &authority)?;
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        Ok(Self { certificate, key, authority: authority.der().clone(), host: host.to_owned() })
    }

    /// The Secret of Kubernetes with this name for it.
    pub fn secret(&self, namespace: &str, name: &str) -> Value {
        secret(namespace, name, &self.files())
    }

    /// The certificate and its key, in files as Kubernetes names them.
    pub fn files(&self) -> [(&'static str, String); 2] {
        [("tls.crt", self.certificate.clone()), ("tls.key", self.key.clone())]
    }

    /// Starts a proxy that takes plain connections and passes them on to a gateway with this certificate. It chooses HTTP/2
    /// if that is what a client begins.
    pub async fn proxy(&self, gateway: SocketAddr) -> Result<SocketAddr> {
        let connector = |protocol: &[u8]| {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.clone())?;
            let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            anyhow::Ok(TlsConnector::from(Arc::new(config)))
        };
        let (http1, http2) = (connector(b"http/1.1")?, connector(b"h2")?);
        let host = ServerName::try_from(self.host.clone())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (http1, http2, host) = (http1.clone(), http2.clone(), host.clone());
                tokio::spawn(async move {
                    client.set_nodelay(true)?;
                    let mut first = [0; 3];
                    client.peek(&mut first).await?;
                    let connector = if &first == b"PRI" { http2 } else { http1 };
                    let server = TcpStream::connect(gateway).await?;
                    server.set_nodelay(true)?;
                    let mut server = connector.connect(host, server).await.context("no TLS")?;
                    copy_bidirectional(&mut client, &mut server).await?;
                    anyhow::Ok(())
                });
            }
        });
        Ok(address)
    }
}

/// A Secret of Kubernetes for TLS.
pub fn secret(namespace: &str, name: &str, data: &[(&str, String)]) -> Value {
    let data: serde_json::Map<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), Base64::encode_string(value.as_bytes()).into())).collect();
    let metadata = json!({ "namespace": namespace, "name": name });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data })
}
