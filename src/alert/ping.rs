//! The pings of a run. Pure.

/// The ping that tells a healthchecks service how far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckPing {
    /// The run begins.
    Start,
    /// The run succeeded; with the lines of its report.
    Success(String),
    /// The run failed.
    Fail {
        /// The reason.
        reason: String,
        /// The lines of its report.
        report: String,
    },
    /// A text for the service's log, which does not change its state.
    Log(String),
}
