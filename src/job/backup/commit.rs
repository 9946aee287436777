//! The backup of a session: the tree is gathered, then the index objects are put, then the record that commits it all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::RoleSettings;
use crate::ids::{ChunkId, IndexId, SourceMark};
use crate::job::admission::session::RoleSession;
use crate::job::backup::dedup_index::IndexLoadOptions;
use crate::job::backup::index_objects::put_indexes;
use crate::job::backup::lost_content::{self, HealingSummary};
use crate::job::backup::outcome::CommittedBackup;
use crate::job::backup::pipeline::PipelineOutput;
use crate::job::backup::request::BackupOptions;
use crate::job::backup::tree_cache::{CacheSnapshot, CacheWriter};
use crate::job::backup::{empty_check, empty_sources, inline_content, tree};
use crate::job::error::BackupError;
use crate::job::local_state::saved_state::IndexComparison;
use crate::job::node::progress::JobPhase;
use crate::job::report::verified::AffectedFile;
use crate::job::report::{ByteCounts, FileCounts, LossReport, MissingFile};
use crate::job::repository::loss_notes::{LossNotes, UnhealedLosses};
use crate::job::verify;
use crate::journal::body::{ChangeCounts, RecordBody, RunCost, SnapshotBody};
use crate::journal::error::AppendError;
use crate::journal::state::Snapshot;
use crate::journal::view::JournalView;
use crate::repo::loss::PackLosses;
#[cfg(feature = "planted")]
use crate::repo::object_keys;

impl RoleSession<'_> {
    /// Backs up until it is done. A run that is cancelled and does not end is abandoned.
    pub(crate) async fn back_up_or_abandon(
        &self,
        role: &RoleSettings,
        ask: &BackupOptions,
    ) -> Result<CommittedBackup, BackupError> {
        let (env, cancel) = (&self.node_context().env, &self.node_context().cancel);
        let mut work = Box::pin(self.back_up_with_retry(role, ask));
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = cancel.cancelled() => {}
        }
        if let Some(result) = env.timeout(LEAVE_AFTER, &mut work).await {
            return result;
        }
        if self.appending_seq().is_some()
            && let Some(result) = env.timeout(LEAVE_APPEND_AFTER, &mut work).await
        {
            return result;
        }
        drop(work);
        match self.appending_seq() {
            None => {
                tracing::warn!("the run is abandoned while it still waits; it cannot commit");
                Err(BackupError::Interrupted)
            }
            Some(seq) => {
                let trouble =
                    self.repository().store.last_attempt_error().map(|why| format!(" (the last try failed: {why})"));
                let why =
                    format!("the store does not answer{}, and the run was told to stop", trouble.unwrap_or_default());
                Err(AppendError::Unknown { seq, why }.into())
            }
        }
    }

    /// Backs up, and a second time without the tree cache if it is damaged, or without the packs that turn out to be
    /// lost.
    pub(crate) async fn back_up_with_retry(
        &self,
        role: &RoleSettings,
        ask: &BackupOptions,
    ) -> Result<CommittedBackup, BackupError> {
        let noted_losses = self.noted_losses().await;
        match self.back_up(role, ask, &noted_losses, None).await {
            Err(BackupError::Cache(error)) => {
                // Only the tree cache is damaged; everything else is still good.
                tracing::warn!("{error}; reading everything again");
                let path = self.tree_cache();
                self.node_context().env.files.remove(&path).map_err(|error| BackupError::State { path, error })?;
                self.back_up(role, ask, &noted_losses, None).await
            }
            Err(BackupError::Repo(error)) => {
                let met = PackLosses::from_error(&error, self.repository().role());
                if met.is_empty() {
                    return Err(error.into());
                }
                tracing::warn!("{error}; continuing without the lost content");
                // The note also serves the next run if this one does not complete.
                self.note_losses(&met).await;
                let noted_losses = self.noted_losses().await;
                self.back_up(role, ask, &noted_losses, Some(met)).await
            }
            result => result,
        }
    }

    /// Whether this run compares the index with the store, and which packs it reads for that.
    fn index_load_options(
        &self,
        base: Option<&Snapshot>,
        ask: &BackupOptions,
        noted_losses: &LossNotes,
        met: Option<PackLosses>,
    ) -> IndexLoadOptions {
        let (memory, state) = (self.saved_state(), self.state());
        let unfinished = memory.clean.is_none() || memory.clean != base.map(|b| b.id);
        let before = memory.compared.as_ref();
        let is_elsewhere = base.is_some_and(|base| base.node.id != self.node_context().node.id);
        let now = self.node_context().env.clock.now();
        // A repair may have taken packs out of the index: their chunks are in the tree cache, and stored nowhere. Terms
        // tell the order: a snapshot that a repair brought back may have a higher number than the repair.
        let is_repaired = base.is_some_and(|base| state.repaired.iter().any(|repaired| repaired.term > base.term));
        let asked = unfinished || ask.rehash || is_elsewhere || is_repaired || noted_losses.has_more();
        let due = asked || lost_content::is_comparison_due(before, state.pruned, now);
        let known = noted_losses.still_lost();
        let news = noted_losses.unhandled(before.and_then(|before| before.note)).into_iter().chain(met);
        let noted = news.reduce(|mut all, more| {
            all.add(&more);
            all
        });
        let compare = noted.or_else(|| due.then(PackLosses::default)).map(|mut noted| {
            noted.add(&known);
            noted
        });
        IndexLoadOptions { unfinished, compare, known }
    }

    async fn back_up(
        &self,
        role: &RoleSettings,
        ask: &BackupOptions,
        noted_losses: &LossNotes,
        met: Option<PackLosses>,
    ) -> Result<CommittedBackup, BackupError> {
        let base = self.state().snapshots.last();
        let survey = self.index_load_options(base, ask, noted_losses, met);
        // From here on the store may contain objects that no record names.
        self.remember_upload()?;
        let progress = &self.node_context().progress;
        progress.enter(JobPhase::Backup);
        let (since, rehash) = (base.map(|base| base.id.to_string()), ask.rehash);
        tracing::debug!(role = %role.name, since, rehash, slot = ?ask.slot, compares_store = survey.compare.is_some(), "the run begins");

        let gathered = match &self.node_context().inputs.content {
            Some(content) => Box::pin(inline_content::gather(self, content.as_ref(), base, survey)).await?,
            None => Box::pin(tree::gather(self, role, base, survey, ask)).await?,
        };
        let empty_sources = empty_check::check_not_empty(
            role.allow_empty,
            &gathered.sources,
            &content_totals(&gathered, base.is_none()),
        )?;
        progress.enter(JobPhase::Commit);
        tracing::debug!(
            packs = gathered.packs.len(),
            "the sources are read: the index, the manifest and the record follow"
        );
        let mut indexes = gathered.indexes.clone();
        indexes.extend(put_indexes(self.node_context(), self.repository(), &gathered.packs).await?);
        let healing = gathered.healing.clone();
        let empty = empty_sources::source_marks(&empty_sources, &self.repository().keys);
        let (committed, view) = self.commit(base, gathered, (indexes, empty), ask.slot, noted_losses).await?;
        let loss = match &healing {
            Some(healing) => self.report_losses(healing, &view, noted_losses).await,
            None => noted_losses.remaining().map(|(packs, files)| LossReport {
                packs,
                missing_files: Some(files),
                ..LossReport::default()
            }),
        };
        Ok(CommittedBackup { empty_sources, loss, ..committed })
    }

    /// Reports the losses that this run met, now that its snapshot is committed.
    async fn report_losses(
        &self,
        healing: &HealingSummary,
        view: &JournalView,
        noted_losses: &LossNotes,
    ) -> Option<LossReport> {
        let report = if healing.packs.is_empty() {
            None
        } else {
            let missing =
                if healing.gone.is_empty() { Some((Vec::new(), 0)) } else { self.missing_files(healing, view).await };
            let (missing, missing_files) = missing.map_or((Vec::new(), None), |(named, count)| (named, Some(count)));
            let packs = healing.packs.len() as u64;
            Some(LossReport { packs, healed_bytes: healing.bytes, missing_files, missing })
        };
        let (lost, more) = healing.losses();
        // If the number is unknown, the lost content may well be needed.
        let files = report.as_ref().map_or(0, |report| report.missing_files.unwrap_or(1));
        let remains = (!healing.gone.is_empty()).then_some(UnhealedLosses { lost, more, files });
        self.record_unhealed(noted_losses, remains).await;
        // Losses that were known before, changed nothing and cost no snapshot a file are not reported again.
        let known = noted_losses.still_lost();
        let is_known = |pack| known.missing.contains(pack) || known.damaged.contains(pack);
        report.filter(|_| healing.bytes > 0 || files > 0 || !healing.packs.iter().all(is_known))
    }

    /// The files of snapshots that need what is still lost: the first ones by name, and how many there are.
    async fn missing_files(&self, healing: &HealingSummary, view: &JournalView) -> Option<(Vec<MissingFile>, u64)> {
        let (repository, state) = (self.repository(), &view.state);
        let index_cache = self.index_cache();
        match verify::affected_entries(repository, &state.indexes, &state.snapshots, &index_cache, &healing.gone).await
        {
            Ok((affected, count)) => {
                let name = |file: AffectedFile| MissingFile { snapshot: file.snapshot, path: file.path };
                Some((affected.into_iter().map(name).collect(), count))
            }
            Err(error) => {
                tracing::warn!("it is unknown which files of older snapshots are lost: {error}");
                None
            }
        }
    }

    async fn commit(
        &self,
        base: Option<&Snapshot>,
        gathered: PipelineOutput,
        (indexes, empty): (Vec<IndexId>, Vec<SourceMark>),
        slot: Option<Timestamp>,
        noted_losses: &LossNotes,
    ) -> Result<(CommittedBackup, JournalView), BackupError> {
        let PipelineOutput { root, nodes, stats: tally, removed, changed_set, cache, healing, mounts, .. } = gathered;
        let files = FileCounts { removed, ..tally.files };
        let shared = &self.node_context().progress;
        let bytes = ByteCounts {
            source: tally.source_bytes,
            read: gathered.read_bytes,
            new: gathered.new_bytes,
            uploaded: shared.bytes_uploaded.load(Ordering::Relaxed),
        };
        let body = RecordBody::Snapshot(SnapshotBody {
            root,
            indexes,
            entries: tally.entries,
            files: tally.regular,
            bytes: tally.source_bytes,
            changes: ChangeCounts {
                new: files.new,
                changed: files.changed,
                unchanged: files.unchanged,
                removed: files.removed,
                unreadable: files.unreadable,
            },
            changed_set: self.repository().keys.sealed_digest(&changed_set),
            cost: RunCost {
                read_bytes: bytes.read,
                new_bytes: bytes.new,
                uploaded_bytes: bytes.uploaded,
                duration_ms: self.elapsed().as_millis() as u64,
            },
            empty: Some(empty),
        });
        if self.node_context().cancel.is_cancelled() {
            return Err(BackupError::Interrupted);
        }
        #[cfg(feature = "planted")]
        let (named, uploaded) = match &body {
            RecordBody::Snapshot(body) => (body.indexes.clone(), gathered.packs.clone()),
            _ => unreachable!("it is a snapshot"),
        };
        let appended = self.append_record(&body, slot).await;
        #[cfg(feature = "planted")]
        if let Err(BackupError::Append(AppendError::Unknown { .. })) = &appended
            && crate::planted::is(crate::planted::PlantedBug::UnknownIsCleanedUp)
        {
            let role = self.repository().role();
            let packs = uploaded.iter().map(|table| object_keys::pack(role, table.id));
            let keys: Vec<String> = named.iter().map(|id| object_keys::index(role, *id)).chain(packs).collect();
            let _ = self.repository().store.delete(&keys).await;
        }
        let view = appended?;
        let snapshot = view.state.snapshots.last().cloned().expect("a snapshot was just appended");
        self.keep_cache(cache, &snapshot, &nodes);
        let now = IndexComparison {
            at: self.node_context().env.clock.now(),
            pruned: view.state.pruned,
            note: noted_losses.object(),
        };
        let compared = healing.map(|_| now).or(self.saved_state().compared);
        self.remember_commit(&view, snapshot.id, compared, mounts)
            // The snapshot is committed; a saved state that cannot be written only costs the next run time.
            .unwrap_or_else(|error| tracing::warn!("the local state cannot be written: {error}"));
        let committed = CommittedBackup {
            snapshot,
            previous: base.cloned(),
            takeover: self.is_takeover(),
            files,
            bytes,
            problems: tally.problems,
            problem_count: tally.problem_count,
            empty_sources: Vec::new(),
            loss: None,
        };
        Ok((committed, view))
    }

    fn keep_cache(&self, cache: Option<CacheWriter>, snapshot: &Snapshot, nodes: &[ChunkId]) {
        let bound = CacheSnapshot { repo: self.repository().keys.repo(), seq: snapshot.seq, snapshot: snapshot.id };
        if let Some(Err(error)) = cache.map(|cache| cache.finish(bound, nodes)) {
            tracing::warn!("the tree cache cannot be written: {error}");
        }
    }
}

/// How long a cancelled run is waited for. A run that still makes progress ends within that time. A thread that is
/// blocked in the kernel, for example by a file on a server that hangs, may never end; it is left behind and has no
/// permit.
const LEAVE_AFTER: Duration = Duration::from_secs(10);

/// The same while a record is being appended: it is worth more to know the outcome of the append.
const LEAVE_APPEND_AFTER: Duration = Duration::from_mins(1);

/// Totals of the gathered content, for the check that the sources are not empty.
fn content_totals(gathered: &PipelineOutput, first: bool) -> empty_check::ContentTotals {
    let tally = &gathered.stats;
    let (content, links, bytes, unreadable) = (tally.content, tally.links, tally.source_bytes, tally.files.unreadable);
    empty_check::ContentTotals { content, links, bytes, first, unreadable, problem: tally.first_unread.clone() }
}
