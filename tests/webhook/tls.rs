//! Certificates are verified.

use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::log::logged;
use crate::report_to;
use crate::server::Server;

/// An authority, as PEM, and a server's settings with a certificate for `localhost` from it.
fn authority() -> (String, ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (issuer.pem(), config)
}

/// Guards: a report goes to the server that the system's authorities vouch for, and to no other.
#[cfg(target_os = "linux")]
#[test]
fn only_a_trusted_server_gets_reports() {
    const NAME: &str = "tls::only_a_trusted_server_gets_reports";
    // The environment says what the system trusts, and is read once per process.
    const TRUSTED: &str = "HEELER_TEST_TRUSTED";
    let Some(directory) = std::env::var_os(TRUSTED) else {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env(TRUSTED, directory.path());
        let output = command.env("SSL_CERT_FILE", directory.path().join("trusted.pem")).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{}:\n{out}\n{err}", output.status);
        return;
    };
    let ((trusted, ours), (_, theirs)) = (authority(), authority());
    std::fs::write(std::path::Path::new(&directory).join("trusted.pem"), trusted).unwrap();

    let server = Server::start_tls(ours);
    let (report, reports) = report_to(server.hook("/hook"), "photos");
    assert_eq!(server.post().json()["id"], *report.id);
    assert_eq!(reports.stats().undelivered, 0);

    let server = Server::start_tls(theirs);
    let logged = logged(|| {
        let (_, reports) = report_to(server.hook("/hook"), "photos");
        assert_eq!(reports.stats().delivered, 0);
    });
    assert!(logged.contains("certificate"), "{logged}");
    assert!(server.posts().is_empty());
}
