//! The virtual environment with the real ZODB and ZEO.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python of a virtual environment with the pinned requirements, which is made
/// where it is missing, and kept below the target directory. `must` runs a
/// command that has to succeed.
pub fn python(must: impl Fn(&mut Command)) -> PathBuf {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zodb/requirements.txt");
    let text = fs::read(&requirements).expect("requirements.txt");
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(temporary).expect("the directory for temporary files");
    // Processes that start together make it one after the other.
    let lock = File::create(temporary.join("venv.lock")).expect("venv.lock");
    lock.lock().expect("the lock of the virtual environment");
    let venv = temporary.join(format!("venv-{}", &blake3::hash(&text).to_hex()[..16]));
    let python = venv.join("bin/python");
    let complete = venv.join("complete");
    if !complete.exists() {
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
        must(Command::new(&python).args(pip).arg(&requirements));
        File::create(&complete).expect("the mark of a complete environment");
    }
    python
}
