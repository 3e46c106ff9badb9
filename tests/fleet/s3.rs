//! A server that speaks the protocol of S3.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

use crate::common::{self, PATIENCE, ms, until};
use crate::{Instance, PREFIX, counted, get_stuck, messages, objects, parts, sums_up};

/// Moto's server. It ends with this.
struct Server {
    port: u16,
    process: Child,
}

impl Server {
    /// Starts it, or returns `None` if this machine has none.
    fn start() -> Option<Self> {
        let in_path = || {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|folder| folder.join("moto_server")).find(|path| path.is_file())
        };
        let Some(program) = std::env::var_os("HEELER_MOTO_SERVER").map(PathBuf::from).or_else(in_path) else {
            println!("not tested: moto_server is not installed");
            return None;
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { port, process: command.spawn().unwrap() };
        until("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(server)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns a client of its own, as each instance has one.
    fn store(&self) -> Arc<dyn ObjectStore> {
        let store = AmazonS3Builder::new().with_bucket_name("heeler").with_endpoint(self.endpoint());
        let store = store.with_allow_http(true).with_region("us-east-1");
        Arc::new(store.with_access_key_id("test").with_secret_access_key("test").build().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Guards: over the protocol of S3, the store heeds conditions, people are told once, everything is counted, and objects are where
/// the documentation says.
#[test]
fn a_fleet_shares_a_bucket() {
    let Some(server) = Server::start() else { return };
    common::runtime(0).block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.put(format!("{}/heeler", server.endpoint())).send().await.unwrap().error_for_status().unwrap();
    });
    let fleet = || heeler::Fleet::new(server.store(), PREFIX).flush_every(ms(200));
    let instances: Vec<_> = (0..4).map(|number| Instance::start(&format!("web{number}"), "1.0", fleet())).collect();
    get_stuck(instances.iter().map(Instance::sinks), 3);
    until("people are told", || messages(&instances) > 0);
    for instance in &instances {
        assert!(instance.reports.blocking_flush(PATIENCE), "{:?}", instance.reports.fleet());
        sums_up(&instance.reports.stats());
        let fleet = instance.reports.fleet().unwrap();
        assert_eq!((fleet.heeds_conditions, fleet.unwritten, fleet.failed_requests), (Some(true), 0, 0), "{fleet:?}");
    }
    let store = server.store();
    assert_eq!((messages(&instances), counted(&store)), (1, 12));
    let parts = parts(&store);
    assert_eq!(parts.iter().filter(|part| part.contains("/claim-")).count(), 1, "{parts:?}");
    assert!(parts.contains(&"1/told".to_owned()), "{parts:?}");
    assert!(!objects(&store, "reports").is_empty() && objects(&store, "index").len() == 4);
}
