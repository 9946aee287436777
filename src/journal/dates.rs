//! Reads the dates of all records: a view that began at a checkpoint lacks them.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ids::Seq;
use crate::journal::error::JournalError;
use crate::journal::reader::Journal;
use crate::journal::record_date::{self, RecordDate};
use crate::journal::view::JournalView;
use crate::store::LargeReadLock;

/// Records fetched at once.
const READ_AHEAD: usize = 16;

impl Journal {
    /// `view` with the dates of all its records. A record that cannot be used has no date.
    ///
    /// # Errors
    /// The store does not answer for a record.
    pub async fn with_all_dates(&self, view: JournalView) -> Result<JournalView, JournalError> {
        let head = view.head.as_ref().map_or(0, |head| head.seq.0);
        // A void number has no date.
        let repairs = self.repairs(&view).await?;
        let numbers: Vec<Seq> = (1..=head).map(Seq).filter(|seq| !repairs.is_void(*seq)).collect();
        let large_read_lock = LargeReadLock::default();
        let mut records =
            stream::iter(numbers).map(|seq| self.read_record_ahead(seq, &large_read_lock)).buffered(READ_AHEAD);
        let mut dates: Vec<RecordDate> = Vec::new();
        loop {
            match records.try_next().await {
                Ok(None) => break,
                Ok(Some(found)) => {
                    if let Some((record, _)) = found {
                        record_date::add_date(&mut dates, &record);
                    }
                }
                Err(error @ JournalError::Store(_)) => return Err(error),
                Err(error) => tracing::debug!("a record without a date: {error}"),
            }
        }
        drop(records);
        Ok(JournalView { dates, ..view })
    }
}
