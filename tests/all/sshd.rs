//! A real sshd on loopback with its own keys, which runs as long as the tests.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{must, tool, wait_for};

/// A running sshd.
pub struct Sshd {
    directory: PathBuf,
    port: u16,
    keys: AtomicU32,
    quick: OnceLock<String>,
}

impl Sshd {
    /// The sshd that all tests share. It ends with their process.
    pub fn get() -> &'static Self {
        static SSHD: OnceLock<Sshd> = OnceLock::new();
        SSHD.get_or_init(Self::start)
    }

    fn start() -> Self {
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sshd-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for sshd");
        tool("sshd", "openssh-server");
        tool("ssh", "openssh-client");
        let host_key = directory.join("host_key");
        make_key(&host_key);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
             MaxStartups 100\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
            host_key.display(),
            directory.join("authorized_keys").display()
        );
        fs::write(directory.join("sshd_config"), config).expect("sshd's configuration");
        fs::create_dir_all("/run/sshd").expect("sshd's directory: the tests need root");
        let sshd_config = directory.join("sshd_config");
        run_beside(&format!("/usr/sbin/sshd -D -f '{}'", sshd_config.display()));
        wait_for("sshd (openssh-server)", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            directory,
            port,
            keys: AtomicU32::new(0),
            quick: OnceLock::new(),
        }
    }

    /// A `-e` argument that logs in with a new key. sshd applies these options to the key,
    /// such as a forced command.
    pub fn rsh(&self, options: &str) -> String {
        rsh(&self.new_key(options))
    }

    /// A new key, and a `-e` argument that logs in with a copy of it.
    pub fn rsh_with_key(&self, copy: &str) -> (PathBuf, String) {
        (self.new_key(""), rsh(Path::new(copy)))
    }

    fn new_key(&self, options: &str) -> PathBuf {
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
        key
    }

    /// A `-e` argument that uses a connection which is already open, for tests that make many
    /// passes.
    pub fn quick_rsh(&self) -> &str {
        self.quick.get_or_init(|| {
            let socket = self.directory.join("connection");
            let rsh = format!("{} -S {}", self.rsh(""), socket.display());
            run_beside(&format!("{rsh} -M -N -p {} root@127.0.0.1", self.port));
            wait_for("ssh", || socket.exists());
            rsh
        })
    }

    /// The master at `path`, as a URL.
    pub fn url(&self, path: &Path) -> String {
        url_at(self.port, path)
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A master's URL through a port that leads to sshd.
pub fn url_at(port: u16, path: &Path) -> String {
    format!("ssh://root@127.0.0.1:{port}{}", path.display())
}

/// An ssh command that logs in with this key and ignores the settings of this machine.
fn rsh(key: &Path) -> String {
    format!(
        "ssh -F none -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        key.display()
    )
}

/// Runs a command until the tests end. A shell ends it when their end of a pipe is closed.
fn run_beside(command: &str) {
    let process = Command::new("sh")
        .args(["-c", &format!("{command} & read -r _; kill $!")])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    std::mem::forget(process);
}

fn make_key(path: &Path) {
    must(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(path),
    );
}
