//! The profile as it is, in JSON: [`SCHEMA`](crate::profile::SCHEMA).

use crate::profile::Profile;

pub(super) fn json(profile: &Profile) -> Result<Vec<u8>, String> {
    serde_json::to_vec(profile).map_err(|error| error.to_string())
}
