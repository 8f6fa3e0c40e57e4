//! What joins several crates, tested in one program: it is linked once, and its tests, most of which wait for
//! daemons, wait side by side.

mod attestation;
mod auditor;
mod aws;
mod bounds;
mod changes;
mod charter;
mod checkouts;
mod command_line;
mod commands;
mod copies;
mod custodian_page;
mod decided;
mod demo;
mod devices;
mod disk;
mod edges;
mod junk;
mod kill;
mod lies;
mod manual;
mod memory;
mod mutations;
mod notify;
mod prompts;
mod raw;
mod recovery;
mod refusals;
mod restore;
mod rotation;
mod tidy;
mod wrong;
mod yubikey;
mod yubikey_mishaps;
mod yubikey_terminal;
mod yubikey_tokens;
