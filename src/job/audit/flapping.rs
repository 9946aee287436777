//! Finds takeovers back and forth: a role that does not stay on one node. Pure.

use std::collections::{BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::job::report::audited::AuditFinding;

/// The most takeovers within [`WITHIN`] that are not reported: enough for a planned switch there and back, and a bad
/// night.
const CALM_MAX: usize = 6;

/// The time within which takeovers are counted.
const WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// Counts takeovers in the journal's order.
#[derive(Debug, Default)]
pub(crate) struct FlappingDetector {
    /// Takeovers within [`WITHIN`], with the new holder's name.
    recent: VecDeque<(Timestamp, String)>,
    /// The current episode.
    current: Option<FlappingEpisode>,
    /// Episodes that are over.
    over: Vec<FlappingEpisode>,
}

#[derive(Debug)]
struct FlappingEpisode {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    nodes: BTreeSet<String>,
}

impl FlappingDetector {
    /// Adds a takeover by `node`.
    pub(crate) fn add_takeover(&mut self, at: Timestamp, node: &str) {
        // A takeover dated by a fast clock is dropped like an old one.
        self.recent.retain(|(before, _)| at.duration_since(*before).abs() < WITHIN);
        self.recent.push_back((at, node.to_owned()));
        if self.recent.len() <= CALM_MAX {
            self.over.extend(self.current.take());
            return;
        }
        match &mut self.current {
            Some(spell) => {
                spell.last = spell.last.max(at);
                spell.count += 1;
                spell.nodes.insert(node.to_owned());
            }
            None => {
                self.current = Some(FlappingEpisode {
                    first: self.recent.iter().map(|(at, _)| *at).min().unwrap_or(at),
                    last: at,
                    count: self.recent.len() as u64,
                    nodes: self.recent.iter().map(|(_, node)| node.clone()).collect(),
                });
            }
        }
    }

    /// The episodes that reach into the time from `since` on.
    pub(crate) fn finish(self, since: Timestamp) -> Vec<AuditFinding> {
        let spells = self.over.into_iter().chain(self.current).filter(|spell| spell.last >= since);
        spells
            .map(|FlappingEpisode { first, last, count, nodes }| AuditFinding::Flapping {
                first,
                last,
                count,
                nodes: nodes.into_iter().collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    fn told(hours: &[i64], since: i64) -> Vec<(i64, i64, u64)> {
        let mut takeovers = FlappingDetector::default();
        for (n, hour) in hours.iter().enumerate() {
            takeovers.add_takeover(at(*hour), ["east", "west"][n % 2]);
        }
        takeovers.finish(at(since)).iter().map(spell).collect()
    }

    fn spell(finding: &AuditFinding) -> (i64, i64, u64) {
        let AuditFinding::Flapping { first, last, count, nodes } = finding else { panic!("{finding:?}") };
        assert_eq!(nodes, &["east", "west"]);
        (first.as_second() / 3600, last.as_second() / 3600, *count)
    }

    #[test]
    fn more_than_six_within_a_day_are_told_once() {
        assert_eq!(told(&[0, 1, 2, 3, 4, 5], 0), []);
        assert_eq!(
            told(&[0, 4, 8, 12, 16, 20, 24, 28, 32, 36], 0),
            [],
            "the first is a day old at the time of the seventh"
        );
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 23, 24, 30], 0), [(0, 24, 8)], "at 30 only three count");
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 0), [(0, 8, 9)]);
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 6, 100, 101, 102, 103, 104, 105, 106], 0), [(0, 6, 7), (100, 106, 7)]);
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 6], 7), [], "before the time in question");
        assert_eq!(
            told(&[8000, 8001, 8002, 8003, 0, 1, 2, 3], 0),
            [],
            "a clock that was ahead adds nothing to the rest"
        );
    }
}
