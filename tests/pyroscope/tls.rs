//! Certificates are verified, as for webhooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use heeler::Pyroscope;
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::common::{Driven, until};
use crate::log::logged;
use crate::{job, layer, stats};

/// A certificate for `localhost` that nobody vouches for.
fn unknown() -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap()
}

/// Guards: a server that nobody vouches for gets nothing, least of all the credentials.
#[test]
fn an_untrusted_server_gets_nothing() {
    let driven = Driven::new(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tried, shaken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&tried), Arc::clone(&shaken));
    driven.spawn(async move {
        let (listener, acceptor) = (TcpListener::from_std(listener).unwrap(), TlsAcceptor::from(Arc::new(unknown())));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counts.0.fetch_add(1, Ordering::Relaxed);
            if acceptor.accept(stream).await.is_ok() {
                counts.1.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let layer = layer(Pyroscope::new(format!("https://localhost:{port}")).bearer_token("T0KEN"));
    let logged = logged(|| {
        job(&layer, "nightly import");
        until("it has failed", || stats(&layer).failed_deliveries > 0);
    });
    assert!(logged.contains("certificate") && !logged.contains("T0KEN"), "{logged}");
    assert!(tried.load(Ordering::Relaxed) > 0 && shaken.load(Ordering::Relaxed) == 0);
    assert_eq!(stats(&layer).delivered, 0);
}
