//! Frames that several batches of a restore need are fetched once.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::job::restore::plan::{FrameKey, FrameSet, KEPT_BYTES};

/// The frames of the last batches, fetched or being fetched.
#[derive(Debug, Default)]
pub(super) struct FrameCache(Mutex<CachedFrames>);

#[derive(Debug, Default)]
struct CachedFrames {
    /// The most recently used frame comes last.
    frames: VecDeque<(FrameKey, FrameReceiver, u64)>,
    bytes: u64,
}

/// Receives a frame as soon as it has been fetched. Closed without one if the fetch failed.
type FrameReceiver = watch::Receiver<Option<Bytes>>;

/// Sends a frame to the batches that wait for it.
pub(super) type FrameSender = watch::Sender<Option<Bytes>>;

impl FrameCache {
    /// Takes from `set` the frames that are fetched or being fetched. The caller must fetch the rest, and send them to
    /// later batches.
    pub(super) fn claim(
        &self,
        set: &mut FrameSet,
    ) -> (HashMap<FrameKey, FrameReceiver>, HashMap<FrameKey, FrameSender>) {
        let (mut coming, mut claimed) = (HashMap::new(), HashMap::new());
        let mut kept = self.0.lock();
        set.leave_out(|key, plain| {
            if let Some(at) = kept.frames.iter().position(|(there, ..)| *there == key) {
                let found = kept.frames.remove(at).expect("it was found there");
                coming.insert(key, found.1.clone());
                kept.frames.push_back(found);
                return true;
            }
            let (sender, receiver) = watch::channel(None);
            claimed.insert(key, sender);
            kept.frames.push_back((key, receiver, plain));
            kept.bytes += plain;
            while kept.bytes > KEPT_BYTES
                && let Some((.., plain)) = kept.frames.pop_front()
            {
                kept.bytes -= plain;
            }
            false
        });
        (coming, claimed)
    }
}
