//! Waiting for the end of a permit.

use std::time::Duration;

use crate::job::node::context::NodeContext;
use crate::role::permit::Deadline;

/// Interval at which the deadline is checked.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Waits until the deadline.
pub(crate) async fn deadline_passed(runner: &NodeContext, deadline: &Deadline) {
    while !deadline.passed(runner.env.clock.moment()) {
        runner.env.sleep(TICK).await;
    }
}
