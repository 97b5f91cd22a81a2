//! A pass in this process that hangs on its master in the middle of an append.

use std::fs;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fssync::io::progress::Silent;
use fssync::pass;
use fssync::pass::apply::Tuning;
use fssync::plan::outcome::Outcome;
use fssync::source::path::MountedPath;

use crate::support::{Call, Hooked, Scene, wait_for, without_forks};

/// The first read of the master that starts after this offset gets no answer.
const HANGS_AFTER: u64 = 18_000;

/// The slave has at least this length when the pass hangs.
const WRITTEN_TO: u64 = 17_000;

/// A pass that hangs until it is released.
pub struct HangingPass {
    release: Sender<()>,
    pass: JoinHandle<Outcome>,
}

impl HangingPass {
    /// Starts the pass, and waits until it hangs and has written everything that it read.
    pub fn start(scene: &Scene) -> Self {
        let (hangs, hung) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let hook = move |call| {
            if let Call::Read(offset) = call
                && offset > HANGS_AFTER
            {
                // After the release nobody receives this.
                let _ = hangs.send(());
                let _ = released.recv();
            }
            Ok(())
        };
        let path = MountedPath::new(scene.master.clone());
        let tuning = Tuning {
            chunk_len: 4096,
            batch_len: 1 << 30,
            ..Tuning::default()
        };
        let job = scene.job(Hooked { path, hook }, tuning);
        let _quiet = without_forks();
        let pass = thread::spawn(move || pass::run(&job, &Silent).outcome);
        hung.recv_timeout(Duration::from_secs(10))
            .expect("it hangs");
        wait_for("data that was read before", || {
            fs::metadata(&scene.slave).is_ok_and(|found| found.len() >= WRITTEN_TO)
        });
        Self { release, pass }
    }

    /// Releases the pass, and returns its outcome.
    pub fn release(self) -> Outcome {
        let _quiet = without_forks();
        drop(self.release);
        self.pass.join().expect("its outcome")
    }
}
