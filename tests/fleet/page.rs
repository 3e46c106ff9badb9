//! The console's page about all instances.

use std::sync::Arc;

use heeler::authorize::bearer;
use http_body_util::{BodyExt as _, Empty};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tower::ServiceExt as _;

use crate::common::{self, PATIENCE, ms};
use crate::{Instance, PREFIX, get_stuck};

const TOKEN: &str = "correct-horse-battery-staple";
const EVIL: &str = "<script>alert(1)</script>'\"&";

fn get(console: &heeler::Console, query: &str) -> (u16, String) {
    let request = http::Request::get(format!("/{query}")).header("authorization", format!("Bearer {TOKEN}"));
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    common::runtime(0).block_on(async {
        let response = console.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    })
}

/// Writes a page into the folder `HEELER_SHOW`, to be looked at.
fn show(name: &str, page: &str) {
    if let Some(folder) = std::env::var_os("HEELER_SHOW") {
        std::fs::write(std::path::Path::new(&folder).join(name), page).unwrap();
    }
}

/// Guards: any instance shows the reports of all, by fingerprint and by release, with the first report, and escapes what came
/// from elsewhere.
#[test]
fn any_instance_shows_all_of_them() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let fleet = || heeler::Fleet::new(Arc::clone(&store), PREFIX).flush_every(ms(200));
    let instances = [Instance::start(EVIL, "1.0", fleet()), Instance::start("web2", "1.1", fleet())];
    get_stuck([instances[0].sinks()], 1);
    get_stuck([instances[1].sinks()], 2);
    instances.iter().for_each(|instance| assert!(instance.reports.blocking_flush(PATIENCE)));
    let console = heeler::console(instances[1].reports.clone(), bearer(TOKEN).unwrap());

    let (status, page) = get(&console, "?view=fleet");
    show("fleet.html", &page);
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("3 reports of 2 instances"), "{page}");
    assert!(page.contains("nightly import") && page.contains("<bdi>1.0</bdi>"), "{page}");
    assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    let link = page.split("href=\"?fleet=").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");

    let (status, page) = get(&console, &format!("?fleet={link}"));
    show("incident.html", &page);
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("<h2>Releases</h2>") && page.contains("<bdi>1.1</bdi>"), "{page}");
    assert!(page.contains("First report") || page.contains("First and worst report"), "{page}");
    let first = &instances[0].all.all()[0].id;
    assert!(page.contains(first), "the first report is there: {page}");
    assert!(!page.contains("<script>alert"), "{page}");

    assert_eq!(get(&console, "?fleet=0123456789abcdef").0, 404);
    assert_eq!(get(&console, "?fleet=../told").0, 404);
}

/// Guards: an instance that was deployed again is one instance, with two versions.
#[test]
fn an_instance_is_one_after_a_deployment() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let fleet = || heeler::Fleet::new(Arc::clone(&store), PREFIX).flush_every(ms(200));
    let instances = [Instance::start("web1", "1.0", fleet()), Instance::start("web1", "1.1", fleet())];
    for instance in &instances {
        get_stuck([instance.sinks()], 1);
        assert!(instance.reports.blocking_flush(PATIENCE));
    }
    let console = heeler::console(instances[1].reports.clone(), bearer(TOKEN).unwrap());
    let (_, page) = get(&console, "?view=fleet");
    assert!(page.contains("2 reports of 1 instance in"), "{page}");
    assert!(page.contains("</span>1: <bdi>web1</bdi> (2)</td>"), "{page}");
    let link = page.split("href=\"?fleet=").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
    let (_, page) = get(&console, &format!("?fleet={link}"));
    assert_eq!(page.matches("<td class=\"wide\"><bdi>web1</bdi>").count(), 2, "by version: {page}");
}

/// Guards: the page has the profiles that another instance has made, and says which one that was.
#[cfg(all(feature = "profile", feature = "object-store"))]
#[test]
fn profiles_of_other_instances_are_there() {
    use heeler::ProfileLayer;
    use heeler::profile::ProfileStore;

    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let layer = || {
        let profiles = ProfileStore::object_store(Arc::clone(&store), "profiles");
        ProfileLayer::new(bearer(TOKEN).unwrap()).store(profiles)
    };
    common::runtime(0).block_on(layer().job("nightly import", tokio::task::yield_now()));
    let service =
        tower::service_fn(async |_: http::Request<String>| Ok::<_, String>(http::Response::new(String::new())));
    let _other = tower::Layer::layer(&layer(), service);
    let fleet = heeler::Fleet::new(Arc::clone(&store), PREFIX);
    let instance = Instance::start("web2", "1.1", fleet);
    let console = heeler::console(instance.reports.clone(), bearer(TOKEN).unwrap());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = format!("{} {}", host.trim(), std::process::id());

    // It is stored a moment after the job has ended.
    common::until("the profile is listed", || get(&console, "?view=fleet").1.contains("nightly import"));
    let (_, page) = get(&console, "?view=fleet");
    show("fleet-profiles.html", &page);
    assert!(page.contains("<h2>Profiles</h2>") && page.contains(&name), "{page}");
    let link = page.split("href=\"?profile=").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
    assert!(get(&console, &format!("?profile={link}")).1.contains("<svg"));
}

/// Guards: a console without a fleet does not link to a page that has nothing to show.
#[test]
fn without_a_fleet_there_is_no_page() {
    let console = heeler::console(heeler::Reports::default(), bearer(TOKEN).unwrap());
    assert!(!get(&console, "?view=history").1.contains("view=fleet"));
    assert_eq!(get(&console, "?view=fleet").0, 503);
}
