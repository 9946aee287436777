//! A role's journal: the append-only sequence of records that is the single truth.
