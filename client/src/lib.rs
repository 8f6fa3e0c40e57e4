//! The client library of keyturn.

#![forbid(unsafe_code)]
