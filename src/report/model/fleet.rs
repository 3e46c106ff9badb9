//! What a message about an incident says of the other instances of its service.

use std::fmt;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::text::units::{count, duration};

/// One incident of all instances of a service. Reports have it that tell people on behalf of them: see
/// [`Fleet`](https://docs.rs/heeler/latest/heeler/struct.Fleet.html).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FleetIncident {
    /// Equal for reports of all instances that have the same cause. Hexadecimal.
    pub key: String,
    /// The number of this occurrence, from 1. 0 if the store did not say.
    pub number: u64,
    /// Why people are told.
    #[serde(deserialize_with = "lenient_news")]
    pub news: FleetNews,
    /// How many pieces of work were reported so far, by all instances that are known to be affected.
    pub reports: u64,
    /// These instances, those with the most reports first: 20 at most.
    pub instances: Vec<FleetInstance>,
    /// How many more there are.
    pub more_instances: u64,
    /// Whether this instance speaks for itself alone, because the store did not answer in time or does not heed conditions,
    /// or because too many incidents began at once. Others may have told people, too.
    pub alone: bool,
    /// The routes of these reports, as far as they are known.
    #[serde(skip)]
    pub(in crate::report) routes: Vec<String>,
}

/// An instance that is affected by an incident.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FleetInstance {
    /// The instance's name, or else its host and process id.
    pub name: String,
    /// The service's version there, if it is known.
    pub version: Option<String>,
    /// How many pieces of work it has reported.
    pub reports: u64,
}

/// Why people are told of an incident.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FleetNews {
    /// It has begun.
    #[default]
    Began,
    /// At least twice as many reports as when people were last told.
    Doubled,
    /// It has spread to another route.
    Spread {
        /// `GET /photos/{id}`
        route: String,
    },
    /// No instance had reports for a while.
    Ended {
        /// For how long there were none, in whole seconds.
        quiet_seconds: u64,
    },
}

/// Reads news that a later version may have written, which this one may not know.
fn lenient_news<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FleetNews, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum News {
        Known(FleetNews),
        Unknown(IgnoredAny),
    }
    Ok(match News::deserialize(deserializer)? {
        News::Known(news) => news,
        News::Unknown(_) => FleetNews::default(),
    })
}

impl fmt::Display for FleetNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.write_str("one message for all instances"),
            Self::Doubled => f.write_str("twice as many reports as in the last message, or more"),
            Self::Spread { route } => write!(f, "it has spread to {route}"),
            Self::Ended { quiet_seconds } => {
                write!(f, "it has ended: no report for {}", duration(Duration::from_secs(*quiet_seconds)))
            }
        }
    }
}

impl FleetIncident {
    /// Returns whether people have been told that it began.
    #[cfg(any(feature = "email", feature = "fleet", feature = "webhook"))]
    pub(in crate::report) fn is_update(&self) -> bool {
        self.news != FleetNews::Began
    }

    /// Returns everything in it that came from elsewhere.
    pub(in crate::report) fn names_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let route = match &mut self.news {
            FleetNews::Spread { route } => Some(route),
            _ => None,
        };
        let instances = self.instances.iter_mut();
        instances.flat_map(|instance| std::iter::once(&mut instance.name).chain(&mut instance.version)).chain(route)
    }

    /// Returns why people are told, and who is affected: the facts of a message.
    pub(in crate::report) fn words(&self) -> String {
        if self.alone {
            return "this instance alone: it could not find out who else sends a message, so others may send one, too"
                .to_owned();
        }
        let mut words = format!("{}: {} of ", self.news, count(self.reports, "report"));
        let all = self.instances.len() as u64 + self.more_instances;
        words.push_str(&count(all, "instance"));
        for (at, instance) in self.instances.iter().enumerate() {
            words.push_str(if at == 0 { ": " } else { ", " });
            words.push_str(&instance.name);
            words.push_str(&format!(" ({}", instance.reports));
            if let Some(version) = &instance.version {
                words.push_str(&format!(", version {version}"));
            }
            words.push(')');
        }
        if self.more_instances > 0 {
            words.push_str(&format!(", and {} more", self.more_instances));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a report that a later version has left in a spool can be read.
    #[test]
    fn unknown_news_are_no_error() {
        let read = |news: &str| serde_json::from_str::<FleetIncident>(&format!(r#"{{"news": {news}}}"#)).unwrap().news;
        assert_eq!(read(r#""doubled""#), FleetNews::Doubled);
        assert_eq!(read(r#"{"ended": {"quiet_seconds": 9}}"#), FleetNews::Ended { quiet_seconds: 9 });
        assert_eq!([read(r#""moved""#), read(r#"{"moved": {"to": 1}}"#)], [FleetNews::Began, FleetNews::Began]);
    }

    #[test]
    fn words_say_who_is_affected() {
        let instance = |name: &str, reports| FleetInstance { name: name.to_owned(), version: None, reports };
        let mut incident = FleetIncident {
            reports: 14,
            instances: vec![instance("web1", 12), instance("web2", 2)],
            ..FleetIncident::default()
        };
        incident.instances[1].version = Some("1.2".to_owned());
        let words = "one message for all instances: 14 reports of 2 instances: web1 (12), web2 (2, version 1.2)";
        assert_eq!(incident.words(), words);
        incident.news = FleetNews::Ended { quiet_seconds: 900 };
        incident.more_instances = 3;
        assert!(
            incident.words().starts_with("it has ended: no report for 15 min 00 s: 14 reports of 5 instances: web1")
        );
        assert!(incident.words().ends_with(", and 3 more"));
    }
}
