//! Who may take the lease, and when: plain functions over plain values.

use std::time::{Duration, Instant};

/// Times of an election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a lease is good for after its holder renewed it.
    pub duration: Duration,
    /// How long a holder acts without a successful renewal. Shorter than `duration` by more than one request may take.
    pub deadline: Duration,
    /// How often holder and candidates come back.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// A lease as read from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it; empty when it was given back.
    pub holder: String,
    /// Changes with every write.
    pub resource_version: String,
    /// How long the holder asked for it.
    pub duration: Duration,
}

/// Remembers when a lease was last seen to change.
#[derive(Debug, Default)]
pub struct Watcher {
    seen: Option<(String, Instant)>,
}

impl Watcher {
    /// Notes what was read at `now`, and says since when it is unchanged.
    pub fn note(&mut self, resource_version: &str, now: Instant) -> Instant {
        match &self.seen {
            Some((version, since)) if version == resource_version => *since,
            _ => {
                self.seen = Some((resource_version.to_owned(), now));
                now
            }
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no lease: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free or has run out: take it over.
    TakeOver,
    /// It is another's.
    StandBy,
}

/// Decides on a lease that is unchanged since `unchanged_since`.
pub fn decide(me: &str, lease: Option<&LeaseView>, unchanged_since: Instant, now: Instant) -> Decision {
    match lease {
        None => Decision::Create,
        Some(lease) if lease.holder == me => Decision::Renew,
        Some(lease) if lease.holder.is_empty() => Decision::TakeOver,
        Some(lease) if now.saturating_duration_since(unchanged_since) > lease.duration => Decision::TakeOver,
        Some(_) => Decision::StandBy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> LeaseView {
        LeaseView { holder: holder.into(), resource_version: "7".into(), duration: Duration::from_secs(15) }
    }

    #[test]
    fn a_lease_is_taken_over_only_when_it_was_seen_unchanged_for_its_whole_duration() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for (lease, now, expected) in [
            (None, after(0), Decision::Create),
            (Some(lease("me")), after(100), Decision::Renew),
            (Some(lease("")), after(0), Decision::TakeOver),
            (Some(lease("other")), after(0), Decision::StandBy),
            (Some(lease("other")), after(15), Decision::StandBy),
            (Some(lease("other")), after(16), Decision::TakeOver),
        ] {
            assert_eq!(decide("me", lease.as_ref(), start, now), expected, "{lease:?}");
        }
    }

    #[test]
    fn the_clock_starts_anew_with_every_change_seen() {
        let start = Instant::now();
        let mut watcher = Watcher::default();
        assert_eq!(watcher.note("1", start), start);
        let later = start + Duration::from_secs(9);
        assert_eq!(watcher.note("1", later), start);
        assert_eq!(watcher.note("2", later), later);
    }

    #[test]
    fn a_holder_stops_before_anybody_may_take_over() {
        let timing = Timing::default();
        assert!(timing.deadline + timing.retry < timing.duration);
    }
}
