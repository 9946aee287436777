//! Decides which server certificates are trusted: those issued by trusted roots, and exactly those that `ca_file`
//! contains.
//!
//! `openssl req -x509` makes a certificate that is its own authority. A chain verifier refuses it as a server
//! certificate, even if it is in the file; here an operator who puts it into `ca_file` has pinned it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::AsyncReadExt;

use super::chain;

/// The most that is read of a file with certificates: more than any bundle of them, less than a file named by mistake
/// may have.
const CA_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Trusts the certificates in the file and nothing else, or the system's roots. Files are read each time, because they
/// are replaced while a long-running node goes on.
///
/// # Errors
/// The error in the file.
pub(super) async fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| chain(&e))?;
    let mut config = match ca_file {
        Some(path) => {
            let verifier = Pinning::new(certificates(path).await?, provider);
            let verifier = verifier.map_err(|why| format!("ca_file {}: {why}", path.display()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        None => builder.with_root_certificates(system_roots().await?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn system_roots() -> Result<RootCertStore, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|e| chain(&e))?;
    let mut roots = RootCertStore::empty();
    // Of hundreds of roots a few may be malformed; without any root every server is refused, which is error enough.
    roots.add_parsable_certificates(found.certs);
    Ok(roots)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |why: String| format!("ca_file {}: {why}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|e| bad(e.to_string()))?;
    let mut pem = Vec::new();
    file.take(CA_FILE_MAX).read_to_end(&mut pem).await.map_err(|e| bad(e.to_string()))?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad(format!("not PEM: {e}")))
}

/// A chain verifier that also accepts exactly the certificates that it was given.
#[derive(Debug)]
struct Pinning {
    chains: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Pinning {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        if certificates.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|e| format!("not a certificate: {e}"))?;
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { chains: chains.map_err(|e| e.to_string())?, certificates })
    }
}

/// Whether a certificate is refused only because it is an authority's. The checks before that one have passed: its
/// dates are valid.
fn is_own_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

impl ServerCertVerifier for Pinning {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chained = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match chained {
            Err(error) if is_own_authority(&error) && self.certificates.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            chained => chained,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate for `localhost` as `openssl req -x509` makes it.
    fn own_authority(until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(until, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verified(pinned: &CertificateDer<'static>, shown: &CertificateDer<'static>, name: &str) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Pinning::new(vec![pinned.clone()], provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        // In 2033.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
        verifier.verify_server_cert(shown, &[], &name, &[], now).map(drop).map_err(|e| e.to_string())
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_trusted_where_the_file_contains_it() {
        let (this, another, expired) = (own_authority(2040), own_authority(2040), own_authority(2030));
        assert_eq!(verified(&this, &this, "localhost"), Ok(()));
        assert!(verified(&this, &this, "example.net").unwrap_err().contains("not valid for name"));
        assert!(verified(&another, &this, "localhost").is_err(), "it is not in the file");
        assert!(verified(&expired, &expired, "localhost").unwrap_err().contains("expired"));
    }
}
