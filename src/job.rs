//! One file for each verb: what a command does, from the first request to its report. No prose for people; `cli`
//! renders.
//! # Example
//!
//! ```
//! # use std::sync::Arc;
//! use runner::config::{KeySource, Settings, StoreUrl};
//! # use runner::env::Env;
//! # use runner::ids::{InstanceId, NodeId};
//! use runner::job::backup::request::BackupRequest;
//! use runner::job::backup::run;
//! # use runner::job::local_state::process_memory::ProcessMemory;
//! use runner::job::node::context::NodeContext;
//! # use runner::job::node::{context::NodeInputs, leases::LeaseSessions};
//! use runner::job::report::RunOutcome;
//! use runner::job::repository::init::init;
//! use runner::job::repository::journal_access::JournalAccess;
//! # use runner::journal::body::WriterNode;
//! use runner::store::Store;
//! # use runner::store::memory::MemoryStore;
//! # use tokio_util::sync::CancellationToken;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! # let (env, dir) = (Env::host(), tempfile::tempdir()?);
//! # let store: Arc<dyn Store> = Arc::new(MemoryStore::new(&env));
//! # let (source, state_dir) = (dir.path().join("source"), dir.path().join("state"));
//! # std::fs::create_dir(&source)?;
//! # std::fs::create_dir(&state_dir)?;
//! # let node_context = NodeContext {
//! #     env: env.clone(),
//! #     node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
//! #     instance: InstanceId([1; 8]),
//! #     state_dir,
//! #     cancel: CancellationToken::new(),
//! #     progress: Arc::default(),
//! #     config_hash: String::new(),
//! #     memory: ProcessMemory::default(),
//! #     inputs: NodeInputs::default(),
//! #     leases: LeaseSessions::default(),
//! # };
//! std::fs::write(source.join("file"), "content")?;
//! let url = StoreUrl::Dir("/var/backups/app".into());
//! let settings = Settings::for_flags(&[source], url, "app".parse()?, KeySource::None)?;
//! let role = settings.roles.values().next().ok_or("the settings have one role")?;
//! init(Arc::clone(&store), &role.name, &role.key, &JournalAccess::default(), &env).await?;
//!
//! let connect = async || Ok(Arc::clone(&store));
//! let request = BackupRequest::default();
//! let report = run::backup(&node_context, &settings, role, connect, request, &|_, _| ()).await?;
//! assert_eq!(report.outcome, RunOutcome::Committed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod admission;
pub mod audit;
pub mod backup;
pub mod browse;
pub mod error;
pub mod exec;
pub mod health;
pub mod keys;
pub mod local_state;
pub mod node;
pub mod operate;
pub mod prune;
pub mod repair;
pub mod report;
pub mod repository;
pub mod restore;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;
pub mod whoami;
