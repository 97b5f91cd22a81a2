//! Files that tests read and change.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The path of a file of this project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Puts a file with these bytes under a name, with a new inode, like a pack.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("pack");
    fs::write(&new, bytes).expect("a new file");
    fs::rename(&new, path).expect("a rename");
}

/// Gives a file these bytes in place, like a commit or an abort: bytes that it already has are
/// not written.
pub fn rewrite_end(path: &Path, bytes: &[u8]) {
    let had = fs::read(path).expect("the file");
    let same = had.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let file = File::options().write(true).open(path).expect("the file");
    file.set_len(same as u64).expect("a cut");
    file.write_all_at(&bytes[same..], same as u64)
        .expect("a write");
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
