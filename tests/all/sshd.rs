//! A real sshd on loopback, with keys of its own, for as long as the tests run.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::must;

/// A running sshd.
pub struct Sshd {
    directory: PathBuf,
    port: u16,
    keys: AtomicU32,
    plain: OnceLock<String>,
}

impl Sshd {
    /// The one that all tests share; it ends when their process does.
    pub fn get() -> &'static Self {
        static SSHD: OnceLock<Sshd> = OnceLock::new();
        SSHD.get_or_init(Self::start)
    }

    fn start() -> Self {
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sshd-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for sshd");
        let host_key = directory.join("host_key");
        make_key(&host_key);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
             MaxStartups 100\nLogLevel ERROR\n",
            host_key.display(),
            directory.join("authorized_keys").display()
        );
        fs::write(directory.join("sshd_config"), config).expect("sshd's configuration");
        fs::create_dir_all("/run/sshd").expect("sshd's directory: the tests need root");
        // The shell ends sshd when the tests' end of the pipe is closed.
        let guard = "\"$0\" -D -f \"$1\" & read -r _; kill $!";
        let process = Command::new("sh")
            .args(["-c", guard, "/usr/sbin/sshd"])
            .arg(directory.join("sshd_config"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        std::mem::forget(process);
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let patience = Duration::from_secs(10);
            assert!(
                started.elapsed() < patience,
                "no sshd (openssh-server) on port {port}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            directory,
            port,
            keys: AtomicU32::new(0),
            plain: OnceLock::new(),
        }
    }

    /// A `-e` argument that logs in with a new key, for which sshd has these
    /// options, such as a forced command.
    pub fn rsh(&self, options: &str) -> String {
        let n = self.keys.fetch_add(1, Ordering::Relaxed);
        let key = self.directory.join(format!("key{n}"));
        make_key(&key);
        let public = fs::read_to_string(key.with_extension("pub")).expect("the public key");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("authorized_keys"))
            .and_then(|mut keys| keys.write_all(format!("{options} {public}").as_bytes()))
            .expect("authorized_keys");
        format!(
            "ssh -F none -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            key.display()
        )
    }

    /// A `-e` argument that logs in, without more.
    pub fn plain_rsh(&self) -> &str {
        self.plain.get_or_init(|| self.rsh(""))
    }

    /// The master at `path`, as a URL.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }
}

fn make_key(path: &Path) {
    must(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(path),
    );
}
