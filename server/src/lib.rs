//! The keyturn daemon.

pub mod store;
