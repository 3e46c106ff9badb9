//! What an application asks for.

use std::time::Duration;

use crate::error::Error;
use crate::log::Clamp;
use crate::text::units::duration;

/// The shortest and the longest time within which requests are counted, and how many at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(86_400);
const MOST: usize = 10_000;
/// How often a rule fires in an hour, unless it says otherwise.
const AT_MOST: u32 = 6;

/// What happens when requests on one route keep being slow. Give it to
/// [`ReportsBuilder::rule`](crate::ReportsBuilder::rule).
///
/// A rule fires when so many requests on one route were slow within a time. All of them count of which a report was made,
/// also those that are held back because one like it has just been sent. A request that ends before it was looked at does
/// not, nor does one for which there was no budget ([`Stats::not_captured`](crate::Stats::not_captured)). The last of them
/// is reported in any case, with a note that says which rule has fired and what follows from it.
///
/// ```
/// use std::time::Duration;
///
/// use heeler::{Reports, Rule};
///
/// let reports = Reports::builder()
///     // One slow request may be bad luck. After the fifth in a minute, the next one is profiled.
///     .rule(Rule::slow(5, Duration::from_secs(60)).profile_next())
///     // Fifty in ten seconds are an outage: take down where everything is, twice an hour at most.
///     .rule(Rule::slow(50, Duration::from_secs(10)).dump().at_most(2))
///     .build()?;
/// # Ok::<(), heeler::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "give it to `ReportsBuilder::rule`"]
pub struct Rule {
    pub(super) requests: usize,
    pub(super) within: Duration,
    pub(super) dump: bool,
    pub(super) profile: bool,
    pub(super) at_most: u32,
}

impl Rule {
    /// Fires when so many requests on one route were slow within that time. It then counts anew.
    ///
    /// Between 1 and 10,000 requests can be counted, within a second to a day. A number beyond that counts as the nearest
    /// that can be, and the log says so once. What the rule does
    /// has to be said with [`dump`](Self::dump), with [`profile_next`](Self::profile_next), or with both.
    pub fn slow(requests: usize, within: Duration) -> Self {
        static REQUESTS: Clamp = Clamp::new("Rule::slow");
        static WITHIN: Clamp = Clamp::new("Rule::slow");
        let requests = REQUESTS.at_most(REQUESTS.at_least(requests, 1), MOST);
        let within = WITHIN.at_most(WITHIN.at_least(within, SHORTEST), LONGEST);
        Self { requests, within, dump: false, profile: false, at_most: AT_MOST }
    }

    /// Sends a [dump](crate::dump()) of everything in flight, as a report of its own.
    pub fn dump(mut self) -> Self {
        self.dump = true;
        self
    }

    /// Profiles the next request on that route, if it comes within ten minutes and goes through a
    /// [`ProfileLayer`](https://docs.rs/heeler/latest/heeler/struct.ProfileLayer.html). This shows in full what reports of
    /// slow requests show from outside: a tail profile.
    ///
    /// Orders belong to the process: if two of its services have the same route, the next request on either is profiled.
    ///
    /// The request runs where it would have run, and its client gets the response as ever. Thresholds and limits apply. The
    /// profile ends with the head of the response, and has nothing of its body. It shows the headers that these reports may
    /// show, and hides what they and the layer hide. It is in the layer's store, for *everybody* who may profile, and in the
    /// console's history. So do not use this where customers may profile their own requests. What it costs the request is in the documentation of
    /// [profiles](https://docs.rs/heeler/latest/heeler/profile/index.html).
    pub fn profile_next(mut self) -> Self {
        self.profile = true;
        self
    }

    /// Sets how often the rule may fire in an hour, on all routes together. Defaults to 6. What is left out is counted, and
    /// said the next time.
    ///
    /// Less than one counts as one, and the log says so once. The console can set another number for some minutes, and zero
    /// as well.
    pub fn at_most(mut self, times: u32) -> Self {
        static CLAMP: Clamp = Clamp::new("Rule::at_most");
        self.at_most = CLAMP.at_least(times, 1);
        self
    }

    pub(in crate::report) fn check(&self) -> Result<(), Error> {
        if self.dump || self.profile {
            return Ok(());
        }
        Err(Error::config("a rule that does nothing: say `dump()` or `profile_next()`"))
    }

    /// Returns the rule in words: `5 slow requests on one route within 1 min 00 s: profile the next`.
    pub(super) fn words(&self) -> String {
        let does = match (self.dump, self.profile) {
            (true, true) => "send a dump and profile the next",
            (true, false) => "send a dump",
            (false, _) => "profile the next",
        };
        let requests = if self.requests == 1 { "request" } else { "requests" };
        format!("{} slow {requests} on one route within {}: {does}", self.requests, duration(self.within))
    }
}
