//! The results of the walkers and the tasks still to be done, as one list in path order.
//!
//! Pure: no threads, no files. The list is a stack whose top is the first in path order. Each node is a task (waiting
//! or taken) with the results that come right before it. When a task is finished its node is replaced, in place, by its
//! output: results, and more tasks. So the order of the results does not depend on the order in which the walkers
//! finish.
//!
//! Walkers take the first task that waits. Once [`QueueLimits::run_ahead`] is reached they only take the very task that
//! the consumer is waiting for, so that the limit can never deadlock the two. Such a task must end with the first
//! further task that comes out of it: results behind that task would wait for it, and one level further down the same
//! again, so that the limit would count for each level of a tree and not for the whole.

use std::collections::VecDeque;

/// Sizes, in units of weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    /// Results that may wait for the consumer; beyond this the walkers stop running ahead.
    pub(super) run_ahead: usize,
    /// Below this, walkers that have stopped are woken.
    pub(super) resume: usize,
    /// Above this, the consumer is woken. Less than `resume`.
    pub(super) batch: usize,
}

/// One part of a task's output.
#[derive(Debug)]
pub(super) enum TaskOutput<W, T> {
    /// Results, with their weight.
    Results(Vec<T>, usize),
    /// A further task, whose results belong at this place.
    Task(W),
}

/// The answer to a request for a task or for results.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueuePoll<V> {
    /// The task or the results.
    Ready(V),
    /// Nothing is ready yet.
    Wait,
    /// Nothing will come any more.
    End,
}

/// The receipt of a taken task, to be handed back with its results.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TaskTicket(u64);

/// How much of a task is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskScope {
    /// The whole task.
    All,
    /// Nothing behind the first further task, because the limit is reached. The rest comes back as a task.
    UpToFirstTask,
}

#[derive(Debug)]
pub(super) struct WalkQueue<W, T> {
    limits: QueueLimits,
    /// The first of these marks the end of the list: it has no task, only the results before the end.
    stack: Vec<QueueNode<W, T>>,
    nodes_made: u64,
    /// Number of nodes that are taken.
    taken: usize,
    /// The weight of all results that wait.
    ready: usize,
    closed: bool,
}

#[derive(Debug)]
struct QueueNode<W, T> {
    id: u64,
    /// Results that come before this node's own.
    before: VecDeque<(Vec<T>, usize)>,
    /// `None` while the task is taken.
    work: Option<W>,
}

impl<W, T> WalkQueue<W, T> {
    /// A list of the tasks `work`, in path order.
    pub(super) fn new(limits: QueueLimits, work: impl DoubleEndedIterator<Item = W>) -> Self {
        let end = QueueNode { id: 0, before: VecDeque::new(), work: None };
        let mut queue = Self { limits, stack: vec![end], nodes_made: 1, taken: 0, ready: 0, closed: false };
        for work in work.rev() {
            let node = queue.node(work, VecDeque::new());
            queue.stack.push(node);
        }
        queue
    }

    fn node(&mut self, work: W, before: VecDeque<(Vec<T>, usize)>) -> QueueNode<W, T> {
        let id = self.nodes_made;
        self.nodes_made += 1;
        QueueNode { id, before, work: Some(work) }
    }

    /// The next task for a walker.
    pub(super) fn take(&mut self) -> QueuePoll<(TaskTicket, W, TaskScope)> {
        if self.closed || self.stack.len() == 1 {
            return QueuePoll::End;
        }
        let want = if self.ready < self.limits.run_ahead { TaskScope::All } else { TaskScope::UpToFirstTask };
        if want == TaskScope::UpToFirstTask && !self.starving() {
            return QueuePoll::Wait;
        }
        // There are as many taken tasks as walkers, so this looks at few nodes.
        let mut from_top = self.stack.iter_mut().skip(1).rev();
        let waiting = from_top.find_map(|n| n.work.take().map(|work| (TaskTicket(n.id), work, want)));
        self.taken += usize::from(waiting.is_some());
        waiting.map_or(QueuePoll::Wait, QueuePoll::Ready)
    }

    /// Puts the output of a task into its place.
    pub(super) fn finish(&mut self, TaskTicket(id): TaskTicket, parts: impl IntoIterator<Item = TaskOutput<W, T>>) {
        if self.closed {
            return;
        }
        let place = self.stack.iter().rposition(|n| n.id == id).expect("a ticket is used once");
        let mut before = self.stack.remove(place).before;
        self.taken -= 1;
        let mut later = Vec::new();
        for part in parts {
            match part {
                TaskOutput::Results(results, weight) => {
                    self.ready += weight;
                    before.push_back((results, weight));
                }
                TaskOutput::Task(work) => later.push(self.node(work, std::mem::take(&mut before))),
            }
        }
        // The end node is never taken, so there is a node after each taken one.
        let after = &mut self.stack[place - 1].before;
        before.append(after);
        *after = before;
        self.stack.splice(place..place, later.into_iter().rev());
    }

    /// Results for the consumer: everything that is ready in path order, but not much more than a batch.
    pub(super) fn pop(&mut self) -> QueuePoll<Vec<T>> {
        let finished = self.stack.len() == 1;
        let top = self.stack.last_mut().expect("the end stays");
        if self.closed || (finished && top.before.is_empty()) {
            return QueuePoll::End;
        }
        if top.before.is_empty() || (self.ready < self.limits.batch && !finished) {
            return QueuePoll::Wait;
        }
        let mut results = Vec::new();
        let mut weight = 0;
        while let Some((more, its_weight)) = top.before.pop_front() {
            weight += its_weight;
            if results.is_empty() {
                results = more;
            } else {
                results.extend(more);
            }
            if weight >= self.limits.batch {
                break;
            }
        }
        self.ready -= weight;
        QueuePoll::Ready(results)
    }

    /// Whether a waiting walker would now find a task, when `busy` others are about to take one.
    pub(super) fn wants_walkers(&self, busy: usize) -> bool {
        let over = self.closed || self.stack.len() == 1;
        let waiting = self.stack.len() - 1 - self.taken.min(self.stack.len() - 1);
        over || (waiting > busy && (self.ready < self.limits.resume || self.starving()))
    }

    /// Whether a waiting consumer would now find results.
    pub(super) fn wants_consumer(&self) -> bool {
        let finished = self.stack.len() == 1;
        let some = self.stack.last().is_some_and(|n| !n.before.is_empty());
        self.closed || finished || (some && self.ready >= self.limits.batch)
    }

    /// Whether the consumer needs the result of a task that no walker has taken.
    fn starving(&self) -> bool {
        self.stack.last().is_some_and(|n| n.before.is_empty() && n.work.is_some())
    }

    /// Ends the queue and drops its content.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.stack.truncate(1);
        self.stack[0].before.clear();
    }

    /// The weight of the results that wait.
    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A directory and its entries, some of which are directories.
    #[derive(Debug, Clone)]
    struct Tree(Vec<Option<Tree>>);

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop::collection::vec(Just(None), 0..6).prop_map(Tree);
        leaf.prop_recursive(5, 120, 6, |inner| prop::collection::vec(prop::option::of(inner), 0..6).prop_map(Tree))
    }

    type Path = Vec<usize>;

    fn expected(tree: &Tree, path: &Path, all: &mut Vec<Path>) {
        for (i, entry) in tree.0.iter().enumerate() {
            let path = [path.as_slice(), &[i]].concat();
            all.push(path.clone());
            if let Some(tree) = entry {
                expected(tree, &path, all);
            }
        }
    }

    /// A directory, and the first of its entries that is still to be scanned.
    type Work = (Path, Tree, usize);

    fn parts((path, tree, start): Work, want: TaskScope) -> Vec<TaskOutput<Work, Path>> {
        let mut parts = vec![];
        for (i, entry) in tree.0.iter().enumerate().skip(start) {
            let path_below = [path.as_slice(), &[i]].concat();
            parts.push(TaskOutput::Results(vec![path_below.clone()], 1));
            if let Some(below) = entry {
                parts.push(TaskOutput::Task((path_below, below.clone(), 0)));
                if want == TaskScope::UpToFirstTask {
                    parts.push(TaskOutput::Task((path, tree, i + 1)));
                    break;
                }
            }
        }
        parts
    }

    const LIMITS: QueueLimits = QueueLimits { run_ahead: 8, resume: 5, batch: 3 };

    proptest! {
        /// In every interleaving of the walkers and the consumer, results come in path order, nothing is lost, no side
        /// waits for ever, and the walkers run ahead by no more than the limit, one task each, and the one that is
        /// waited for.
        #[test]
        fn any_interleaving_gives_path_order(tree in tree(), choices in prop::collection::vec(0..4_usize, 1..60)) {
            let mut queue = WalkQueue::new(LIMITS, [(vec![], tree.clone(), 0)].into_iter());
            let mut hands = [None, None];
            let mut got = vec![];
            let mut choices = choices.into_iter().cycle();
            let mut idle = 0;
            loop {
                // 0, 1: a walker's step; 2, 3: the consumer's.
                let who = if idle == 0 { choices.next().unwrap() } else { idle % 3 };
                let moved = if who < 2 {
                    match hands[who].take() {
                        Some((ticket, work, want)) => { queue.finish(ticket, parts(work, want)); true }
                        None => match queue.take() {
                            QueuePoll::Ready(work) => { hands[who] = Some(work); true }
                            QueuePoll::Wait | QueuePoll::End => false,
                        }
                    }
                } else {
                    let promised = queue.wants_consumer();
                    match queue.pop() {
                        QueuePoll::Ready(results) => { prop_assert!(promised); got.extend(results); true }
                        QueuePoll::Wait => { prop_assert!(!promised); false }
                        QueuePoll::End => break,
                    }
                };
                prop_assert!(queue.ready() < LIMITS.run_ahead + 3 * 6);
                idle = if moved { 0 } else { idle + 1 };
                prop_assert!(idle < 7, "no walker can move: {queue:?}");
            }
            let mut all = vec![];
            expected(&tree, &vec![], &mut all);
            prop_assert_eq!(got, all);
        }
    }

    #[test]
    fn at_the_limit_only_what_the_consumer_waits_for_is_taken() {
        let mut queue: WalkQueue<&str, u32> = WalkQueue::new(LIMITS, ["a", "b", "c"].into_iter());
        let QueuePoll::Ready((a, "a", TaskScope::All)) = queue.take() else { panic!() };
        let QueuePoll::Ready((b, "b", TaskScope::All)) = queue.take() else { panic!() };
        queue.finish(b, [TaskOutput::Results(vec![1; 9], 9)]);
        assert_eq!(queue.take(), QueuePoll::Wait, "c would run ahead");
        assert_eq!(queue.pop(), QueuePoll::Wait, "a comes first");
        queue.finish(a, [TaskOutput::Task("a1")]);
        assert!(queue.wants_walkers(0));
        let QueuePoll::Ready((a1, "a1", TaskScope::UpToFirstTask)) = queue.take() else { panic!() };
        queue.finish(a1, []);
        assert_eq!(queue.pop(), QueuePoll::Ready(vec![1; 9]));
        assert!(queue.wants_walkers(0));
    }

    #[test]
    fn closing_ends_both_sides() {
        let mut queue: WalkQueue<&str, u32> = WalkQueue::new(LIMITS, ["a", "b"].into_iter());
        let QueuePoll::Ready((a, ..)) = queue.take() else { panic!() };
        queue.close();
        queue.finish(a, [TaskOutput::Results(vec![1], 1)]);
        assert_eq!(queue.take(), QueuePoll::End);
        assert_eq!(queue.pop(), QueuePoll::End);
        assert!(queue.wants_walkers(0) && queue.wants_consumer());
    }
}
