//! Programs of Debian packages that are unpacked but not installed, so that no service starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A file of a Debian package, such as `usr/bin/promtool`. The package is downloaded and unpacked
/// below `target/tmp` once. Elsewhere than on Debian, the file is searched in `PATH` by its name.
pub fn packaged(package: &str, file: &str) -> PathBuf {
    static UNPACKING: Mutex<()> = Mutex::new(());
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let root = packages.join(package);
    let unpacked = root.join(file);
    let _one_at_a_time = UNPACKING.lock().unwrap_or_else(PoisonError::into_inner);
    if unpacked.exists() {
        return unpacked;
    }
    let script = "mkdir -p \"$1.new\" && cd \"$1.new\" && apt-get update -qq && \
                  apt-get download -qq \"$2\" && dpkg-deb -x ./*.deb . && rm ./*.deb && \
                  rm -rf \"$1\" && mv \"$1.new\" \"$1\"";
    fs::create_dir_all(&packages).expect("a directory");
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&root)
        .arg(package)
        .output();
    if done.as_ref().is_ok_and(|it| it.status.success()) && unpacked.exists() {
        return unpacked;
    }
    let name = Path::new(file).file_name().expect("a name");
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths)
        .chain([
            PathBuf::from("/usr/sbin"),
            PathBuf::from("/usr/lib/nagios/plugins"),
        ])
        .map(|path| path.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{file} is missing: install {package} ({done:?})"))
}
