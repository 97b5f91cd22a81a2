//! cron's own daemon, in namespaces in which only a given table exists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::support::{packaged, require_root, spawn, tool, write_program};

/// Gives the daemon its files, in the directory that is the first argument.
const SCRIPT: &str = "cd \"$1\" && mount --bind cron.d /etc/cron.d && touch /etc/crontab && \
                      mount --bind crontab /etc/crontab && mkdir -p /var/spool/cron/crontabs && \
                      mount --bind crontabs /var/spool/cron/crontabs && \
                      mount --bind run /run && mount --bind sbin /usr/sbin && \
                      exec /usr/sbin/cron -f";

/// A running cron, which is killed with its jobs when this is dropped.
pub struct Cron {
    daemon: Child,
    mails: PathBuf,
}

impl Cron {
    /// Starts the daemon with a table in the format of `/etc/cron.d`. It mails the output of
    /// each job, if the table contains a `MAILTO`. Its files are in new directories in
    /// `directory`.
    pub fn start(directory: &Path, table: &str) -> Self {
        require_root();
        let (machine, mails) = (directory.join("machine"), directory.join("mails"));
        for name in ["sbin", "cron.d", "crontabs", "run"] {
            fs::create_dir_all(machine.join(name)).expect("a directory");
        }
        fs::create_dir(&mails).expect("a directory");
        let cron = fs::read(packaged("cron", "usr/sbin/cron")).expect("cron");
        write_program(&machine.join("sbin/cron"), cron);
        let mail = mails.join("mail.XXXXXX");
        let sendmail = format!("#!/bin/sh\ncat >\"$(mktemp {})\"\n", mail.display());
        write_program(&machine.join("sbin/sendmail"), sendmail);
        fs::write(machine.join("cron.d/fssync"), table).expect("the table");
        fs::write(machine.join("crontab"), "").expect("an empty table");
        let mut unshare = tool("unshare", "util-linux");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["sh", "-c", SCRIPT, "sh"]).arg(&machine);
        Self {
            daemon: spawn(unshare.stdin(Stdio::null())),
            mails,
        }
    }

    /// The mails that were sent.
    pub fn mails(&self) -> Vec<String> {
        let files = fs::read_dir(&self.mails).expect("the mails");
        let read = |path: PathBuf| fs::read_to_string(path).expect("a mail");
        files.map(|it| read(it.expect("a mail").path())).collect()
    }
}

impl Drop for Cron {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Lines of a table that run a command three times a minute, and append its exit code to a file.
pub fn three_times_a_minute(command: &str, exits: &Path) -> String {
    let job = |delay: u32| {
        let exits = exits.display();
        format!("* * * * * root sleep {delay}; {command}; echo $? >>{exits}\n")
    };
    [0, 20, 40].map(job).concat()
}
