//! The harness, and the tests that join all parts.
