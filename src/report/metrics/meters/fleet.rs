//! The metrics of the fleet.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::report::fleet::FleetStats;

const MESSAGES: &str = "heeler_fleet_messages_total";
const REQUESTS: &str = "heeler_fleet_requests_total";
const FAILED_REQUESTS: &str = "heeler_fleet_failed_requests_total";
const UNCOUNTED: &str = "heeler_fleet_uncounted_total";
const UNWRITTEN: &str = "heeler_fleet_unwritten";
const HEEDS_CONDITIONS: &str = "heeler_fleet_heeds_conditions";

/// Hands them to the recorder.
pub(super) fn record(fleet: FleetStats) {
    describe();
    counter!(MESSAGES, "alone" => "false").absolute(fleet.messages);
    counter!(MESSAGES, "alone" => "true").absolute(fleet.messages_alone);
    let requests = [("put", fleet.puts), ("get", fleet.gets), ("list", fleet.lists), ("remove", fleet.removals)];
    for (kind, number) in requests {
        counter!(REQUESTS, "kind" => kind).absolute(number);
    }
    counter!(FAILED_REQUESTS).absolute(fleet.failed_requests);
    counter!(UNCOUNTED).absolute(fleet.uncounted);
    gauge!(UNWRITTEN).set(fleet.unwritten as f64);
    if let Some(heeds) = fleet.heeds_conditions {
        gauge!(HEEDS_CONDITIONS).set(if heeds { 1.0 } else { 0.0 });
    }
}

fn describe() {
    let counters = [
        (MESSAGES, "Incidents that people were told of, for all instances or for this one alone."),
        (REQUESTS, "Requests to the store of the fleet, failed ones included."),
        (FAILED_REQUESTS, "Requests to the store of the fleet that failed or were not answered in time."),
        (UNCOUNTED, "Reports that the counts in the store of the fleet lack for good."),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    describe_gauge!(UNWRITTEN, Unit::Count, "Reports that are counted in memory, and not in the store yet.");
    describe_gauge!(HEEDS_CONDITIONS, Unit::Count, "1 if the store of the fleet heeds conditions, else 0.");
}
