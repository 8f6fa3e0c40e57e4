//! The keyturn daemon.
