//! `keyturnd`, the daemon.
fn main() {}
