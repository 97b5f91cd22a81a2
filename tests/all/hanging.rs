//! A pass in this process that hangs on its master, in the midst of an append.

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

/// Where the first read of the master starts that gets no answer, at least.
const HANGS_BEHIND: u64 = 18_000;

/// What is written of what was read before, at least.
const WRITTEN_TO: u64 = 17_000;

/// A pass that hangs until it is let go.
pub struct HangingPass {
    release: Sender<()>,
    pass: JoinHandle<Outcome>,
}

impl HangingPass {
    /// Starts it, and waits until it hangs and has written all that it has read.
    pub fn start(scene: &Scene) -> Self {
        let (hangs, hung) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let hook = move |call| {
            if let Call::Read(offset) = call
                && offset > HANGS_BEHIND
            {
                // Once it was let go, nobody waits for that.
                let _ = hangs.send(());
                let _ = released.recv();
            }
            Ok(())
        };
        let path = MountedPath::new(scene.master.clone());
        let tuning = Tuning {
            chunk_len: 4096,
            batch_len: 1 << 30,
        };
        let job = scene.job(Hooked { path, hook }, tuning);
        let _quiet = without_forks();
        let pass = thread::spawn(move || pass::pass(&job, &Silent));
        hung.recv_timeout(Duration::from_secs(10))
            .expect("it hangs");
        wait_for("what it has read", || {
            fs::metadata(&scene.slave).is_ok_and(|found| found.len() >= WRITTEN_TO)
        });
        Self { release, pass }
    }

    /// Lets it go; returns how it ends.
    pub fn go_on(self) -> Outcome {
        let _quiet = without_forks();
        drop(self.release);
        self.pass.join().expect("its outcome")
    }
}
