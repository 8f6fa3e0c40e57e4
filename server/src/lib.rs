//! The keyturn daemon.
//!
//! The shell around the pure core: it listens, reads clocks and keys, and carries out what
//! `keyturn-vault` decides.

#![forbid(unsafe_code)]

pub mod accept;
pub mod anteroom;
pub mod attest;
pub mod backup;
pub mod chain;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
pub mod copies;
pub mod daemon;
pub mod desk;
pub mod fuzz;
pub mod gate;
pub mod gauges;
pub mod generate;
pub mod health;
pub mod http;
pub mod identity;
pub mod init;
pub mod keys;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod mode;
pub mod notice;
pub mod notify;
pub mod owner;
pub mod peers;
pub mod program;
pub mod refusal;
pub mod release;
pub mod restore;
pub mod rotation;
pub mod rows;
pub mod run;
pub mod sealing;
pub mod serve;
pub mod service;
pub mod shell;
pub mod store;
pub mod systemd;
pub mod tally;
pub mod telemetry;
pub mod tls;
pub mod verify;
