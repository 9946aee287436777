//! Decides when a client is rebuilt from the credentials and certificates on disk, after a server refused its current
//! ones. Pure.
//!
//! The invariant that lives here: a refusal leads to at most one new client and one more request, and continuing
//! refusals rebuild clients at growing intervals. So files that were replaced on disk are used at once, and a permanent
//! refusal costs next to nothing.

use std::time::Duration;

/// The pause before the second rebuild, and the longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The renewal state of one client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientRenewal {
    generation: u64,
    /// No rebuild before this time, and the pause that follows the next rebuild.
    until: Duration,
    pause: Duration,
}

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAction {
    /// Another caller has built a new client since: send the request through that one.
    UseNewer,
    /// Build a new client and send the request through it.
    Build,
    /// The refusal is final.
    GiveUp,
}

impl ClientRenewal {
    /// The number of the current client; each new one has a higher number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Decides about a refusal of the client of generation `used` at `now`.
    pub fn note_refusal(&self, used: u64, now: Duration) -> RenewalAction {
        if self.generation > used {
            RenewalAction::UseNewer
        } else if now < self.until {
            RenewalAction::GiveUp
        } else {
            RenewalAction::Build
        }
    }

    /// Records that a new client was built at `now`, or that the attempt failed.
    pub fn note_built(&mut self, now: Duration) {
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        (self.generation, self.until) = (self.generation + 1, now + self.pause);
    }

    /// Records that the new client succeeded at what the previous one was refused.
    pub fn note_accepted(&mut self) {
        (self.until, self.pause) = (Duration::ZERO, Duration::ZERO);
    }

    /// Allows an immediate rebuild, because the operator asked for a new client.
    pub fn request_rebuild(&mut self) {
        self.note_accepted();
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_refusal_builds_and_those_of_the_same_client_use_what_was_built() {
        let mut renewal = ClientRenewal::default();
        assert_eq!(renewal.note_refusal(0, at(100)), RenewalAction::Build);
        renewal.note_built(at(100));
        assert_eq!(renewal.note_refusal(0, at(100)), RenewalAction::UseNewer);
        assert_eq!(renewal.note_refusal(1, at(100)), RenewalAction::GiveUp, "the new one has the same answer");
        renewal.note_accepted();
        assert_eq!(
            renewal.note_refusal(1, at(100)),
            RenewalAction::Build,
            "what was exchanged a second time is used at once, too"
        );
    }

    #[test]
    fn refusals_that_go_on_build_at_growing_intervals() {
        let mut renewal = ClientRenewal::default();
        let mut built = Vec::new();
        for second in 0..200 {
            if renewal.note_refusal(renewal.generation(), at(second)) == RenewalAction::Build {
                renewal.note_built(at(second));
                built.push(second);
            }
        }
        assert_eq!(built, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]);
        renewal.request_rebuild();
        assert_eq!(renewal.note_refusal(renewal.generation(), at(182)), RenewalAction::Build);
    }
}
