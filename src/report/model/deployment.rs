//! Where the process runs, as its environment says.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ProcessInfo;
use crate::log::{TARGET, log_safely};
use crate::report::privacy::Redactor;
use crate::text::percent;

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The most characters of each value.
const MAX_VALUE: usize = 200;

/// Returns the name of the service, its version, the instance and the zone, as far as `variable` knows them. Attributes are
/// those of OpenTelemetry's resources, read as its
/// [specification](https://opentelemetry.io/docs/specs/otel/resource/sdk/) says. Names of Kubernetes' pods come from its
/// downward API, by the name that its documentation uses.
pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> ProcessInfo {
    let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let attributes = variable(ATTRIBUTES).and_then(|text| attributes(&text)).unwrap_or_default();
    let attribute = |name: &str| {
        attributes
            .iter()
            .rfind(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    };
    let redactor = Redactor::default();
    let shown = |value: Option<String>| value.map(|value| redactor.text(value.trim(), MAX_VALUE));
    ProcessInfo {
        service: shown(variable("OTEL_SERVICE_NAME").or_else(|| attribute("service.name"))),
        version: shown(attribute("service.version")),
        instance: shown(
            attribute("service.instance.id").or_else(|| attribute("k8s.pod.name")).or_else(|| variable("POD_NAME")),
        ),
        zone: shown(attribute("cloud.availability_zone")),
        ..ProcessInfo::default()
    }
}

/// Reads `key=value,key=value`, with values that are percent-encoded. If one is wrong, none counts.
fn attributes(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some(())?;
        Some((key.to_owned(), percent::decoded(value.trim())?))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

/// Says once if the attributes cannot be read. Call it without a lock, because a log is the application's code.
pub(in crate::report) fn check() {
    static SAID: AtomicBool = AtomicBool::new(false);
    let is_wrong = || std::env::var(ATTRIBUTES).is_ok_and(|text| attributes(&text).is_none());
    if !SAID.swap(true, Ordering::Relaxed) && is_wrong() {
        log_safely(|| {
            tracing::warn!(target: TARGET, "{ATTRIBUTES} cannot be read: reports do not say where they come from");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> [Option<String>; 4] {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let ProcessInfo { service, version, instance, zone, .. } = of_environment(variable);
        [service, version, instance, zone]
    }

    fn some(values: [&str; 4]) -> [Option<String>; 4] {
        values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    #[test]
    fn the_environment_says_where_the_process_runs() {
        let attributes =
            "service.name=shop, service.version=1.2%2C3 ,service.instance.id=a7,cloud.availability_zone=eu-1a";
        assert_eq!(of(&[("OTEL_RESOURCE_ATTRIBUTES", attributes)]), some(["shop", "1.2,3", "a7", "eu-1a"]));
        let named =
            [("OTEL_RESOURCE_ATTRIBUTES", attributes), ("OTEL_SERVICE_NAME", "photos"), ("POD_NAME", "photos-7f")];
        assert_eq!(of(&named), some(["photos", "1.2,3", "a7", "eu-1a"]));
        let pod = [("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=photos-8c"), ("POD_NAME", "photos-7f")];
        assert_eq!(of(&pod), some(["", "", "photos-8c", ""]));
        assert_eq!(of(&[("POD_NAME", "photos-7f")]), some(["", "", "photos-7f", ""]));
        assert_eq!(of(&[("OTEL_SERVICE_NAME", " "), ("OTEL_RESOURCE_ATTRIBUTES", "")]), some([""; 4]));
    }

    #[test]
    fn what_cannot_be_read_is_discarded_as_a_whole() {
        for wrong in ["service.name", "service.name=a,=b", "service.name=a,x=%zz", "service.name=%ff"] {
            assert_eq!(of(&[("OTEL_RESOURCE_ATTRIBUTES", wrong)]), some([""; 4]), "{wrong}");
        }
    }

    #[test]
    fn values_are_short_and_hide_secrets() {
        let [service, .., instance, _] =
            of(&[("OTEL_SERVICE_NAME", &"x".repeat(10_000)), ("POD_NAME", "a token=hunter2")]);
        // With what says how much is missing.
        assert!(service.unwrap().chars().count() < 2 * MAX_VALUE);
        assert!(!instance.unwrap().contains("hunter2"));
    }
}
