//! Reading a journal up to its head, whether the head is in the store or in etcd.

use crate::journal::error::JournalError;
use crate::journal::reader::{Journal, seq_of};
use crate::journal::record;
use crate::journal::view::JournalView;

impl Journal {
    /// Reads from `known` (`None`: from nothing) to the head. The store has every record that the view shows.
    ///
    /// # Errors
    /// [`JournalError::RolledBack`] if the store no longer has the record that was known.
    pub async fn read(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let view = match &self.etcd_head {
            Some(head) => Box::pin(self.read_with_head(head, known)).await,
            None => Box::pin(self.read_store(known)).await,
        }?;
        self.check_generation(&view)?;
        Ok(view)
    }

    /// Reads as far as the store lists, for a command that only looks. A listing may lag: the view is the journal as of
    /// now or a moment ago, and never older than `known`. The store has every record that the view shows.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn read_listed(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let start = self.check_known(known).await?;
        let head = self.find_listed(seq_of(start)).await?;
        let view = Box::pin(self.read_to(start, head, record::CHECKPOINT_STEP)).await?;
        match self.check_generation(&view) {
            // The listing may lack the record of the rotation.
            Err(JournalError::OlderThanKey { .. }) => self.read(known).await,
            checked => checked.map(|()| view),
        }
    }

    /// [`Journal::read`] for a process that looks repeatedly, in one request while nothing is new: it asks for the
    /// record after the newest known one. With `verify` it also reads the newest known one, as an append does, and so
    /// notices a store that was rolled back.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn poll(&self, known: Option<&JournalView>, verify: bool) -> Result<JournalView, JournalError> {
        // This version may know the kinds that an older one passed over.
        let Some(view) = known.filter(|view| view.is_understood()) else { return self.read(known).await };
        if let Some(head) = view.head.as_ref().filter(|_| verify)
            && let Err(error) = self.read_known_head(head).await
        {
            return if error.is_rolled_back() { self.read(known).await } else { Err(error) };
        }
        if self.is_occupied(view.next_seq()).await? || !self.is_head_in_store(view).await? {
            return self.read(known).await;
        }
        self.check_generation(view)?;
        Ok(view.clone())
    }

    /// Returns `view`, which was the journal a moment ago, if nothing was appended since, otherwise the newer view.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn refresh(&self, view: JournalView) -> Result<JournalView, JournalError> {
        if self.etcd_head.is_none() && !self.is_occupied(view.next_seq()).await? {
            return Ok(view);
        }
        self.read(Some(&view)).await
    }
}
