//! The machines, row by row and in exhaustive walks.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tables, and helpers of tests"
)]

mod ceremony;
mod change;
mod checkout;
mod rotation;
mod tiny;
mod walk;
