//! What the harnesses for system calls, power cuts and interleavings share.

pub mod actor;
pub mod oracle;
pub mod scenario;
