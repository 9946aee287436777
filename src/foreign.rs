//! The audit of foreign backups: what a listing of keys, sizes and times says about backups that another program made.
//!
//! A listing is all that is read: no config, no key, no repository, no content. [`audit`] is pure: a listing goes in, findings
//! come out. `listing` holds what was listed.
//!
//! Unknown is neither sick nor healthy: what a careful person could not decide is a finding with the confidence `Ask`,
//! which fails no check.

pub mod bucket;
mod calendar_word;
mod chain;
mod civil_time;
mod column_stats;
mod file_kind;
pub mod format;
mod judge;
mod key_plan;
mod key_token;
pub mod listing;
pub mod options;
pub mod pattern;
pub mod report;
mod repository;
mod rhythm;
mod role_slots;
mod series;
mod size_history;
mod time_part;
mod twin;
mod twin_names;

use crate::foreign::listing::BucketListing;
use crate::foreign::options::ForeignAuditOptions;
use crate::foreign::report::ForeignAudit;

/// Audits what was listed.
pub fn audit(listing: &BucketListing, options: &ForeignAuditOptions) -> ForeignAudit {
    judge::judge(listing, options)
}

#[cfg(test)]
mod tests;
