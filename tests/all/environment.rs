//! Things that take long to create and are kept below the target directory, such as the
//! virtual environment with the real ZODB and ZEO.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pinned requirements of the tests: the newest ZODB, and ZEO.
pub const REQUIREMENTS: &str = "tests/zodb/requirements.txt";

/// The Python of a virtual environment with the packages of a file of requirements. `must`
/// runs a command that has to succeed.
pub fn python(requirements: &str, must: impl Fn(&mut Command)) -> PathBuf {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join(requirements);
    let text = fs::read(&requirements).expect("a file of requirements");
    let venv = kept("venv", &text, |venv| {
        let venv = venv.to_str().expect("a path in UTF-8");
        must(Command::new("python3").args(["-m", "venv", "--clear", venv]));
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ];
        let python = Path::new(venv).join("bin/python");
        must(Command::new(python).args(pip).arg(&requirements));
    });
    venv.join("bin/python")
}

/// A directory of this name below the target directory. `make` fills it, unless a directory
/// that was made with the same recipe exists.
pub fn kept(name: &str, recipe: &[u8], make: impl FnOnce(&Path)) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(temporary).expect("the directory for temporary files");
    // Processes that start at the same time wait for the first one.
    let lock = File::create(temporary.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock of the directory");
    let directory = temporary.join(format!("{name}-{}", &blake3::hash(recipe).to_hex()[..16]));
    let complete = directory.join("complete");
    if !complete.exists() {
        // Left by an interrupted attempt.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        make(&directory);
        File::create(&complete).expect("the mark that it is complete");
    }
    directory
}
