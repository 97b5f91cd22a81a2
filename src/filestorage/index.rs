//! Where the current data record of each object lies: what ZODB keeps in
//! memory, and in `Data.fs.index` for the next opening.
//!
//! An [`Index`] is a sorted list of leaves of bounded length, with 14 bytes an
//! object (the oid in 8, the position in 6 as in ZODB's own). A leaf grows by
//! eighths, and a full one in the middle is split into two that have no room to
//! spare, so there are never more than 17 bytes an object, whatever the oids are
//! and in whatever order they come, beside the some 7 kB of a last leaf that is
//! filled by rising oids. ZODB's form is made leaf by leaf when it is
//! [written](Index::write).
//!
//! | part | duty |
//! | --- | --- |
//! | [`builder`] | an index from what a scan comes by |
//! | [`pickle`] | ZODB's form in a file |
//! | [`sanity`] | whether ZODB takes an index for a file's |
//!
//! The facts are those of ZODB 6.4 (`fsIndex.py`, `FileStorage/FileStorage.py`)
//! and BTrees 6.5 (`_fsBTree.c`).

pub mod builder;
mod leaf;
pub mod pickle;
pub mod sanity;

use leaf::Leaf;

/// The position of the current data record of each object.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// For each leaf, the least oid that belongs in it; 0 for the first one.
    firsts: Vec<u64>,
    /// None is empty.
    leaves: Vec<Leaf>,
    /// The leaf that was written last: the next oid is often near.
    recent: usize,
    len: usize,
}

impl Index {
    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the object's current data record is, if it has one.
    #[must_use]
    pub fn get(&self, oid: u64) -> Option<u64> {
        self.leaves.get(self.leaf_of(oid))?.get(oid)
    }

    /// Sets where the object's current data record is; returns where it was. Only
    /// the lower 6 bytes are kept, as in ZODB's.
    pub fn insert(&mut self, oid: u64, position: u64) -> Option<u64> {
        let at = self.leaf_of(oid);
        self.recent = at;
        let is_last = at + 1 >= self.leaves.len();
        let Some(leaf) = self.leaves.get_mut(at) else {
            self.start_leaf(0, oid, position);
            return None;
        };
        match leaf.find(oid) {
            Ok(slot) => return Some(leaf.set(slot, position)),
            Err(slot) if !leaf.is_full() => leaf.insert(slot, oid, position),
            Err(slot) if is_last && slot == leaf.len() => {
                self.start_leaf(oid, oid, position);
                return None;
            }
            Err(_) => {
                let right = leaf.split();
                self.firsts.insert(at + 1, right.first());
                self.leaves.insert(at + 1, right);
                return self.insert(oid, position);
            }
        }
        self.len += 1;
        None
    }

    /// The objects and their positions, by rising oid.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.leaves.iter().flat_map(Leaf::iter)
    }

    /// The leaf that `oid` belongs in, if there is any.
    fn leaf_of(&self, oid: u64) -> usize {
        let recent = self.firsts.get(self.recent..).unwrap_or_default();
        match *recent {
            [first] if first <= oid => self.recent,
            [first, next, ..] if (first..next).contains(&oid) => self.recent,
            _ => self
                .firsts
                .partition_point(|&first| first <= oid)
                .saturating_sub(1),
        }
    }

    /// Begins another leaf, behind all others, which holds one object.
    fn start_leaf(&mut self, first: u64, oid: u64, position: u64) {
        self.recent = self.leaves.len();
        self.firsts.push(first);
        self.leaves.push(Leaf::start(oid, position));
        self.len += 1;
    }
}

#[cfg(test)]
mod tests;
