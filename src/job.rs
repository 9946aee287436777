//! One verb a file: what a command does, from the first request to its report. No prose here; `cli` renders.

pub mod progress;
pub mod report;
pub mod restore;
pub mod stop;
