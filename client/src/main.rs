//! `keyturn`, the command line.
fn main() {}
