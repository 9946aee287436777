//! Waiting for the end of a permit.

use std::time::Duration;

use crate::job::node::context::NodeContext;
use crate::role::candidacy::Deadline;

/// Interval at which the deadline is checked.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Waits until the deadline.
pub(crate) async fn deadline_passed(node_context: &NodeContext, deadline: &Deadline) {
    while !deadline.passed(node_context.env.clock.moment()) {
        node_context.env.sleep(TICK).await;
    }
}
