//! A role's journal: the append-only sequence of records that is the single truth. Everything that a role stores is live
//! because a record says so, and nothing becomes visible before its record is appended. A takeover record ends every
//! older permit; fencing is nothing else, and needs no clock and no lease.
//!
//! A file uses only files that stand above it here; "pure" files do no I/O:
//!
//! - [`rotation`] (pure): the record that begins a generation of the repository key.
//! - [`body`] (pure): the kinds of records, as they are stored.
//! - [`repair_history`] (pure): what repairs said is lost.
//! - [`state`] (pure): what records add up to.
//! - [`record`] (pure): one record, encoded and decoded; [`record_date`] (pure): when it was written.
//! - [`view`] (pure): a journal as far as it was read; folds records into the state.
//! - [`future_dates`] (pure): what a wrong clock dated, or would date. [`salvage`] (pure): what is left after a loss.
//! - [`register`]: one value with compare-and-swap, which decides where the store ignores conditions.
//! - [`error`]: why a journal is not read, or not appended to.
//! - [`head_search`] (pure): where a journal ends. [`head_state`] (pure): whether etcd and the store agree on that.
//! - [`void_numbers`]: the numbers that repairs made void. `emptied`: a journal whose records are all lost.
//! - [`reader`]: [`reader::Journal`], and what the store has of it. [`dates`]: the dates of all its records.
//! - [`permit`]: proof of a takeover, which only the journal makes.
//! - [`draft`]: a record before it is sent.
//! - [`etcd_head`]: a journal whose head is in a register.
//! - [`current_view`]: reading up to the head, wherever that is.
//! - [`append`]: takeovers and all other records.
//! - [`repair`]: lets a journal continue that lost records.
//! # Example
//!
//! ```
//! # use std::sync::Arc;
//! # use runner::config::{KeySource, RoleSettings};
//! # use runner::env::Env;
//! use runner::ids::{InstanceId, NodeId, RepoId};
//! use runner::journal::body::{BeginBody, RecordBody, TakeoverReason, WriterNode};
//! use runner::journal::error::AppendError;
//! use runner::journal::reader::Journal;
//! # use runner::repo::crypto::{Cipher, DerivedKeys};
//! # use runner::repo::keyring::RepositoryKey;
//! # use runner::role::candidacy::Candidacy;
//! # use runner::role::election::{ElectionHistory, ElectionInputs, ElectionState, LeaseView, RetakeReason, decide};
//! # use runner::store::memory::MemoryStore;
//! # use runner::store::Store;
//! #
//! # /// A won election for this node of a role without probes and without a lease.
//! # fn candidacy(node: NodeId, env: &Env) -> Candidacy {
//! #     let role = &RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()]);
//! #     let (now, history, retake_reason) = (env.clock.now(), &ElectionHistory::default(), RetakeReason::ByHand);
//! #     let (clock_offset, assessment, plan) = (None, None, None);
//! #     let (lease, history) = (LeaseView::Unasked, Some(history));
//! #     let inputs = ElectionInputs {
//! #         role, node, label: "east", now, clock_offset, assessment, lease, history, plan, retake_reason,
//! #     };
//! #     let ElectionState::Active { candidacy, .. } = decide(inputs).state else { panic!("a role without probes") };
//! #     candidacy
//! # }
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! # let env = Env::host();
//! # let store: Arc<dyn Store> = Arc::new(MemoryStore::new(&env));
//! # let keys = DerivedKeys::new(Cipher::None, RepoId([7; 16]), "app".parse()?, RepositoryKey::new([7; 32]));
//! let journal = |n: u8, name: &str| {
//!     let node = WriterNode { id: NodeId([n; 16]), name: name.to_owned() };
//!     Journal::new(Arc::clone(&store), keys.clone(), env.clone(), node, InstanceId([n; 8]))
//! };
//! let (east, west) = (journal(1, "east"), journal(2, "west"));
//!
//! let view = east.read(None).await?;
//! let (permit, view) = east.take_over(&view, &candidacy(east.node().id, &env), TakeoverReason::First).await?;
//! let begin = || RecordBody::Begin(BeginBody {});
//! let view = east.append(&permit, &view, begin(), None).await?;
//!
//! // The takeover of another node ends the permit.
//! let seen = west.read(None).await?;
//! let (_, newest) = west.take_over(&seen, &candidacy(west.node().id, &env), TakeoverReason::Moved).await?;
//! let late = east.append(&permit, &view, begin(), None).await;
//! assert!(matches!(late, Err(AppendError::Fenced(_))));
//! assert_eq!(east.read(Some(&view)).await?, newest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod append;
pub mod body;
pub mod current_view;
pub mod dates;
pub mod draft;
pub(crate) mod emptied;
pub mod error;
pub mod etcd_head;
pub mod future_dates;
pub mod head_search;
pub mod head_state;
pub mod permit;
pub mod reader;
pub mod record;
pub mod record_date;
pub mod register;
pub mod repair;
pub mod repair_history;
pub mod rotation;
pub mod salvage;
pub mod state;
pub mod view;
pub mod void_numbers;
