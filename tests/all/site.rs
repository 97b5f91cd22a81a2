//! Several storages from one configuration file.

mod config;
mod hooks;
mod metrics;
mod passes;
mod status;
pub mod support;
mod switching;
mod watch;
mod zeo;
