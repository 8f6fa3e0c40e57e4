//! The machines, row by row and in exhaustive walks.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tables, and helpers of tests"
)]

mod alone;
mod ceremony;
mod change;
mod composed;
mod composed_keys;
mod keys;
mod refusal;
mod replay;
mod rotation;
mod said;
mod tiny;
mod walk;
