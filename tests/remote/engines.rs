//! Servers of the tests' own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use heeler::profile::remote::JobQueue;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use tempfile::TempDir;

use crate::common::until;

/// A server that can be killed and started again.
pub(crate) struct Server {
    engine: Engine,
    port: u16,
    folder: TempDir,
    process: Mutex<Option<Child>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Redis,
    Postgres,
}

impl Server {
    /// Starts one, or returns `None` if this machine has none.
    pub(crate) fn start(engine: Engine) -> Option<Self> {
        let program = match engine {
            Engine::Redis => find("redis-server"),
            Engine::Postgres => find("initdb").and_then(|_| find("postgres")),
        };
        if program.is_none() {
            assert!(std::env::var_os("HEELER_NEEDS_SERVERS").is_none(), "{engine:?} is not installed");
            println!("not tested: {engine:?} is not installed");
            return None;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let server = Self { engine, port, folder: tempfile::tempdir().unwrap(), process: Mutex::new(None) };
        if engine == Engine::Postgres {
            server.init_postgres();
        }
        server.run();
        Some(server)
    }

    fn init_postgres(&self) {
        // It refuses to run as root.
        std::process::Command::new("chown").arg("nobody").arg(self.folder.path()).status().unwrap();
        let mut init = as_nobody(&find("initdb").unwrap());
        init.args(["--username=heeler", "--auth=trust", "--no-sync", "-D"]).arg(self.data());
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, again if it was killed. What was in it is still there.
    pub(crate) fn run(&self) {
        let port = self.port.to_string();
        let mut command = match self.engine {
            Engine::Redis => {
                let mut command = Command::new(find("redis-server").unwrap());
                command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
                command.args(["--appendfsync", "no", "--dir"]).arg(self.folder.path());
                command
            }
            Engine::Postgres => {
                let mut command = as_nobody(&find("postgres").unwrap());
                command.args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k"]);
                command.arg(self.folder.path()).arg("-D").arg(self.data());
                command
            }
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        *self.process.lock().unwrap() = Some(child);
        until("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    /// Kills it, and what it has started.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else { return };
        if self.engine == Engine::Postgres {
            // `runuser` is in between.
            let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            if let Some(pid) = pid.lines().next() {
                let _ = Command::new("kill").args(["-QUIT", pid]).status();
            }
        } else {
            child.kill().unwrap();
        }
        let _ = child.wait();
    }

    pub(crate) fn url(&self) -> String {
        match self.engine {
            Engine::Redis => format!("redis://127.0.0.1:{}/", self.port),
            Engine::Postgres => format!("postgres://heeler@127.0.0.1:{}/postgres", self.port),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn queue(&self) -> JobQueue {
        queue(self.engine, &self.url())
    }
}

pub(crate) fn queue(engine: Engine, url: &str) -> JobQueue {
    match engine {
        Engine::Redis => JobQueue::redis(url).unwrap(),
        Engine::Postgres => JobQueue::postgres(url).unwrap(),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A bucket, in a server that speaks the protocol of S3.
pub(crate) struct Bucket {
    port: u16,
    process: Child,
}

impl Bucket {
    /// Starts moto's server, or returns `None` if this machine has none.
    pub(crate) fn start() -> Option<Self> {
        let program = moto_server()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let bucket = Self { port, process: command.spawn().unwrap() };
        until("the bucket's server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(bucket)
    }

    pub(crate) async fn store(&self) -> Arc<dyn ObjectStore> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        create_bucket(&endpoint).await;
        bucket(&endpoint)
    }
}

pub(crate) async fn create_bucket(endpoint: &str) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.put(format!("{endpoint}/heeler")).send().await.unwrap().error_for_status().unwrap();
}

/// Returns a client of a bucket that has been created.
pub(crate) fn bucket(endpoint: &str) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new().with_bucket_name("heeler").with_endpoint(endpoint).with_allow_http(true);
    Arc::new(store.with_access_key_id("test").with_secret_access_key("test").with_region("us-east-1").build().unwrap())
}

/// The program, if this machine has it.
pub(crate) fn moto_server() -> Option<PathBuf> {
    let program = std::env::var_os("HEELER_MOTO_SERVER").map(PathBuf::from).or_else(|| find("moto_server"));
    if program.is_none() {
        println!("not tested: moto_server is not installed");
    }
    program
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn as_nobody(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|this| std::os::unix::fs::MetadataExt::uid(&this) == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(program);
    command
}

/// Debian keeps the programs of a Postgres server out of the path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}
