//! Sites with blobs, written by the real ZODB in both set-ups and both layouts.

mod checker;
pub mod derived;
mod directories;
mod failovers;
mod full_disk;
mod interrupted;
mod network;
mod options;
mod order;
mod owners;
mod packs;
mod page;
mod passes;
mod progress;
mod recheck;
mod recognition;
mod scale;
mod site;
mod status;
mod upkeep;
mod writers;
mod zeo;
