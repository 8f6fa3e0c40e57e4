//! The client library of keyturn.
