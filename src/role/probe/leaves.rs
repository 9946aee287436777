//! The leaf probes of a combined probe.

use crate::config::Probe;

pub(crate) fn collect_leaves<'a>(probe: &'a Probe, leaves: &mut Vec<&'a Probe>) {
    match probe {
        Probe::Vip { .. } | Probe::Command { .. } | Probe::Http { .. } | Probe::Mounted { .. } | Probe::Unit { .. } => {
            leaves.push(probe);
        }
        Probe::All(probes) | Probe::Any(probes) => probes.iter().for_each(|p| collect_leaves(p, leaves)),
        Probe::Not(inner) => collect_leaves(inner, leaves),
    }
}
