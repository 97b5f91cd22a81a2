//! Files that tests read and change.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
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

/// Everything that a change in a directory could affect.
pub fn snapshot(directory: &Path) -> Vec<impl PartialEq + use<>> {
    let mut paths = vec![directory.to_owned()];
    paths.extend(
        names(directory)
            .into_iter()
            .map(|name| directory.join(name)),
    );
    paths.iter().map(|path| snapshot_of(path)).collect()
}

/// The same for one file or directory, without its content.
pub fn snapshot_of(path: &Path) -> impl PartialEq + use<> {
    let found = fs::symlink_metadata(path).unwrap();
    let times = [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    let bytes = if found.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let name = path.display().to_string();
    (name, found.ino(), found.mode(), times, bytes)
}
