//! Metrics for Prometheus: as text, and as a textfile for node_exporter.
//!
//! The metrics of a storage come from its [`Status`](crate::status::Status), which reads only the
//! slave and the files beside it. Neither the master nor a lock is involved, so metrics are also
//! available while a pass runs, while the master hangs, and while syncing is off. The counters are
//! those of the sidecar.
//!
//! [`exposition`] derives the text from statuses. [`Textfile`] looks at the storages and replaces
//! the file; [`TextfileThread`] does that again and again while a watch runs. The textfile is the
//! only file that this module writes.
//!
//! A textfile that cannot be written never changes the exit code of a pass, and delays nothing: it
//! is written after a pass has released its lock, in another thread, and a pass waits only for a
//! limited time.

pub mod exposition;

mod textfile;
mod thread;

pub use self::exposition::Sample;
pub use self::textfile::{Storage, Textfile};
pub use self::thread::TextfileThread;
