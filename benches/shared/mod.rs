//! Shared by the benches.

#![allow(dead_code, reason = "not every bench uses all of it")]

pub(crate) mod arguments;
pub(crate) mod command;
pub(crate) mod contest;
pub(crate) mod generate;
pub(crate) mod place;
pub(crate) mod table;
pub(crate) mod times;
