//! The job after the opening: check-in, rotation, what the target then accepts, and everything that fails.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on fails where it stands"
)]

mod at_scale;
mod aws;
mod by_hand;
mod directory;
mod kept;
mod killed_between_messages;
mod killed_in_calls;
mod one_slot;
mod people;
mod postgres;
mod schedule;
mod stage;
mod two_slots;
