//! The profiles of a layer, as a console sees them.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::answer::render;
use super::form::Form;
use super::id::Id;
use super::layer::Config;
use super::page::words;
use super::supervisor::SUPERVISOR;
use super::{Outcome, store};
use crate::report::profiles::{ProfileForm, ProfileLine, Profiles};

/// The longest that a console waits for a store.
const PATIENCE: Duration = Duration::from_secs(3);
const MAX_LISTED: usize = 100;

impl Profiles for Config {
    fn place(&self) -> usize {
        self.store.address()
    }

    fn recent(&self, principal: Option<&str>) -> Result<Vec<ProfileLine>, String> {
        let (store, principal) = (self.store.clone(), principal.map(str::to_owned));
        let found = waited(async move { store.list(principal.as_deref(), "", MAX_LISTED).await })?;
        Ok(found.map_err(|error| error.to_string())?.into_iter().map(line).collect())
    }

    fn read(&self, id: &str, principal: Option<&str>, form: ProfileForm) -> Result<Option<Vec<u8>>, String> {
        let Ok(id) = id.parse::<Id>() else { return Ok(None) };
        let (store, principal) = (self.store.clone(), principal.map(str::to_owned));
        let found = waited(async move { store.get(&id, principal.as_deref()).await })?;
        let Some(mut profile) = found.map_err(|error| error.to_string())? else { return Ok(None) };
        // Whoever looks at a console need not see what clients get.
        if let Some(response) = &mut profile.response {
            response.body.clear();
        }
        let form = match form {
            ProfileForm::Svg => Form::Svg,
            ProfileForm::Json => Form::Json,
        };
        render(form, &profile).map(Some).map_err(|error| error.to_string())
    }
}

fn line(summary: store::Summary) -> ProfileLine {
    let ended = match (&summary.outcome, summary.status) {
        (Outcome::Finished, Some(status)) => status.to_string(),
        (outcome, _) => words::outcome(outcome).to_owned(),
    };
    ProfileLine {
        id: summary.id.to_string(),
        started_at: summary.started_at,
        request: words::work(&summary.method, &summary.uri).to_string(),
        ended,
        time: Duration::from_nanos(summary.wall_nanos),
        instance: summary.instance,
        reason: summary.reason,
    }
}

/// Waits on the calling thread until the store has answered.
fn waited<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
    let supervisor = SUPERVISOR.get().handle().map_err(|error| error.to_string())?;
    let (done, result) = sync_channel(1);
    supervisor.spawn(async move {
        if let Ok(result) = tokio::time::timeout(PATIENCE, work).await {
            // The console may have given up.
            let _ = done.send(result);
        }
    });
    let late = |_| "the store of profiles takes too long".to_owned();
    result.recv_timeout(2 * PATIENCE).map_err(late)
}
