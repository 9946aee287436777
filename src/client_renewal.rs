//! When a client is built anew from the credentials and certificates on disk, because a server refused the ones it has. Pure.
//!
//! The invariant that lives here: a refusal is answered by one new client and one more request at most, and refusals that go on build
//! clients at growing intervals. So what was exchanged on disk is used at once, and what is refused for good costs next to nothing.

use std::time::Duration;

/// The pause before the second new client, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where one client stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientRenewal {
    generation: u64,
    /// No other one is built before this time, and the pause after which that is.
    until: Duration,
    pause: Duration,
}

/// What is done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAction {
    /// Another caller has built a new client since: it is asked.
    UseNewer,
    /// A new one is built, and asked.
    Build,
    /// The refusal stands.
    Stands,
}

impl ClientRenewal {
    /// Which client this is; each new one has a higher number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The client of generation `used` was refused at `now`.
    pub fn note_refusal(&self, used: u64, now: Duration) -> RenewalAction {
        if self.generation > used {
            RenewalAction::UseNewer
        } else if now < self.until {
            RenewalAction::Stands
        } else {
            RenewalAction::Build
        }
    }

    /// A new one is built at `now`, also where that came to nothing.
    pub fn note_built(&mut self, now: Duration) {
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        (self.generation, self.until) = (self.generation + 1, now + self.pause);
    }

    /// The new one did what the one before was refused.
    pub fn note_accepted(&mut self) {
        (self.until, self.pause) = (Duration::ZERO, Duration::ZERO);
    }

    /// An operator asks for a new client: whatever was refused may be built anew at once.
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
        assert_eq!(renewal.note_refusal(1, at(100)), RenewalAction::Stands, "the new one has the same answer");
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
