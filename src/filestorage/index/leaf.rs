//! A leaf of the index: a short list of objects, sorted by oid.

use std::mem;

/// The maximum number of objects in a leaf.
pub(super) const MAX_LEN: usize = 512;

/// A position or an oid prefix, in 6 bytes as in ZODB.
pub(super) type Packed = [u8; 6];

/// Objects with neighbouring oids, and their positions.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    oids: Vec<u64>,
    positions: Vec<Packed>,
}

impl Leaf {
    /// A leaf with one object, and capacity for [`MAX_LEN`].
    pub(super) fn start(oid: u64, position: u64) -> Self {
        let mut leaf = Self {
            oids: Vec::with_capacity(MAX_LEN),
            positions: Vec::with_capacity(MAX_LEN),
        };
        leaf.oids.push(oid);
        leaf.positions.push(pack(position));
        leaf
    }

    pub(super) fn len(&self) -> usize {
        self.oids.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_LEN
    }

    /// The least oid.
    pub(super) fn first(&self) -> u64 {
        self.oids.first().copied().unwrap_or_default()
    }

    /// The slot of an oid, or as an error the slot where it must be inserted.
    pub(super) fn find(&self, oid: u64) -> Result<usize, usize> {
        // ZODB assigns oids in sequence, so the oid is most likely at its distance from the
        // first one.
        let guess = oid.wrapping_sub(self.first()) as usize;
        match self.oids.get(guess) {
            Some(&found) if found == oid => Ok(guess),
            _ if self.oids.last().is_some_and(|&last| last < oid) => Err(self.len()),
            _ => self.oids.binary_search(&oid),
        }
    }

    pub(super) fn get(&self, oid: u64) -> Option<u64> {
        self.find(oid).ok().map(|slot| unpack(self.positions[slot]))
    }

    /// Sets a position, and returns the previous one.
    pub(super) fn set(&mut self, slot: usize, position: u64) -> u64 {
        unpack(mem::replace(&mut self.positions[slot], pack(position)))
    }

    pub(super) fn insert(&mut self, slot: usize, oid: u64, position: u64) {
        if self.len() == self.oids.capacity() {
            let more = (self.len() / 8).max(1);
            self.oids.reserve_exact(more);
            self.positions.reserve_exact(more);
        }
        self.oids.insert(slot, oid);
        self.positions.insert(slot, pack(position));
    }

    /// Splits off the upper half. Neither half has spare capacity.
    pub(super) fn split(&mut self) -> Self {
        let half = self.len() / 2;
        let right = Self {
            oids: self.oids.split_off(half),
            positions: self.positions.split_off(half),
        };
        self.oids.shrink_to_fit();
        self.positions.shrink_to_fit();
        right
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let positions = self.positions.iter().copied().map(unpack);
        self.oids.iter().copied().zip(positions)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_len(&self) -> usize {
        self.oids.capacity() * size_of::<u64>() + self.positions.capacity() * size_of::<Packed>()
    }
}

/// Packs the lower 6 bytes of a number.
pub(super) fn pack(number: u64) -> Packed {
    let [_, _, packed @ ..] = number.to_be_bytes();
    packed
}

pub(super) fn unpack(packed: Packed) -> u64 {
    let mut bytes = [0; 8];
    bytes[8 - packed.len()..].copy_from_slice(&packed);
    u64::from_be_bytes(bytes)
}
