//! The names of blob files below a blob directory.
//!
//! A blob directory says in its file `.layout` how it names its files. The facts come from
//! ZODB 6.4 (`ZODB/blob.py`: `BushyLayout`, `LawnLayout`).
//!
//! | layout | name of the blob with oid 0x1234 and tid 0x03a1… |
//! | --- | --- |
//! | `bushy` | `0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/0x03a1….blob` |
//! | `lawn` | `0x1234/0x03a1….blob` |
//!
//! A tid, and the oid in a lawn, is written without its leading zero bytes; 0 is `0x00`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::BlobKey;
use crate::filestorage::Tid;

/// The name of the file that names the layout of a blob directory.
pub const LAYOUT_FILE: &str = ".layout";

/// The end of the name of every blob file.
const SUFFIX: &str = ".blob";

/// How a blob directory names its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Eight directories, one for each byte of the oid.
    Bushy,
    /// One directory for each object.
    Lawn,
}

impl Layout {
    /// The layout with this name, which is the content of a `.layout` file; `None` if it is
    /// another one, such as `zeocache`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text.trim_ascii() {
            b"bushy" => Some(Self::Bushy),
            b"lawn" => Some(Self::Lawn),
            _ => None,
        }
    }

    /// The name of the layout, as in a `.layout` file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bushy => "bushy",
            Self::Lawn => "lawn",
        }
    }

    /// The directory of an object's blobs, relative to the blob directory.
    #[must_use]
    pub fn directory(self, oid: u64) -> PathBuf {
        match self {
            Self::Bushy => oid
                .to_be_bytes()
                .iter()
                .map(|byte| format!("0x{byte:02x}"))
                .collect(),
            Self::Lawn => trimmed(oid).into(),
        }
    }

    /// The path of a blob file, relative to the blob directory.
    #[must_use]
    pub fn path(self, key: BlobKey) -> PathBuf {
        let name = format!("{}{SUFFIX}", trimmed(key.tid.0));
        self.directory(key.oid).join(name)
    }

    /// The blob with this path, relative to the blob directory; `None` if no blob has it.
    #[must_use]
    pub fn key(self, relative_path: &Path) -> Option<BlobKey> {
        let mut parts = Vec::new();
        for part in relative_path.components() {
            let Component::Normal(part) = part else {
                return None;
            };
            parts.push(part.to_str()?);
        }
        let (name, directories) = parts.split_last()?;
        let digits: String = directories
            .iter()
            .map(|part| part.strip_prefix("0x"))
            .collect::<Option<_>>()?;
        let oid = u64::from_str_radix(&digits, 16).ok()?;
        let tid = name.strip_suffix(SUFFIX)?.strip_prefix("0x")?;
        let tid = Tid(u64::from_str_radix(tid, 16).ok()?);
        let key = BlobKey { tid, oid };
        // Other spellings of the same numbers are not names of this layout.
        (self.path(key) == relative_path).then_some(key)
    }
}

/// A number in hexadecimal, without its leading zero bytes.
fn trimmed(number: u64) -> String {
    let len = 8 - (number.leading_zeros() / 8).min(7) as usize;
    format!("0x{number:0width$x}", width = 2 * len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_contains_the_oid_and_the_tid_without_leading_zero_bytes() {
        for (oid, tid, bushy, lawn) in [
            (
                0x1234,
                0x03a1_0000_0000_00ff,
                "0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/0x03a10000000000ff.blob",
                "0x1234/0x03a10000000000ff.blob",
            ),
            (
                0,
                7,
                "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x07.blob",
                "0x00/0x07.blob",
            ),
            (
                0x100,
                0,
                "0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x00/0x00.blob",
                "0x0100/0x00.blob",
            ),
        ] {
            let key = BlobKey { oid, tid: Tid(tid) };
            for (layout, path) in [(Layout::Bushy, bushy), (Layout::Lawn, lawn)] {
                assert_eq!(layout.path(key), Path::new(path));
                assert_eq!(layout.key(Path::new(path)), Some(key));
            }
            assert_eq!(Layout::Bushy.key(Path::new(lawn)), None);
            assert_eq!(Layout::Lawn.key(Path::new(bushy)), None);
        }
    }

    #[test]
    fn other_files_are_no_blobs() {
        for path in [
            "",
            "0x01",
            "0x01/0x02",
            "0x1/0x02.blob",
            "0x01/0x002.blob",
            "0X01/0x02.blob",
            "0x+1/0x02.blob",
            "../0x01/0x02.blob",
            "/0x01/0x02.blob",
            "0x01/0x02.blob.lock",
            ".fssync/0x01/0x02.blob",
            "0x010000000000000000/0x02.blob",
        ] {
            assert_eq!(Layout::Lawn.key(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn only_the_layouts_of_servers_are_known() {
        assert_eq!(Layout::parse(b"bushy"), Some(Layout::Bushy));
        assert_eq!(Layout::parse(b"lawn\n"), Some(Layout::Lawn));
        for text in ["", "zeocache", "Bushy", "bushy lawn"] {
            assert_eq!(Layout::parse(text.as_bytes()), None, "{text}");
        }
    }
}
