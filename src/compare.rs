//! Comparing the transactions of slave and master.

pub mod succession;

mod old_slave;
