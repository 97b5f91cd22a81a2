//! The names of a disk: those that readers see, and those that a power cut leaves.

use std::collections::BTreeMap;

use super::Node;
use crate::rng::Rng;

/// The directory that contains all others.
pub const ROOT: Node = 0;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub directory: Node,
    pub name: String,
}

/// Which changes of names a power cut leaves, if they are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Lost,
    Kept,
    /// Any number of changes, the first ones.
    Journal,
    /// Any changes.
    Any,
}

type Directories = BTreeMap<Place, Node>;

/// A change of names, which is kept or lost as a whole.
#[derive(Clone, Debug)]
struct Change {
    removed: Option<(Place, Node)>,
    added: Option<(Place, Node)>,
}

impl Change {
    /// The directory whose sync makes the change durable: that of the new name, if there is
    /// one.
    fn directory(&self) -> Option<Node> {
        let place = self.added.as_ref().or(self.removed.as_ref());
        place.map(|(place, _)| place.directory)
    }

    fn carry_out(&self, names: &mut Directories) {
        if let Some((place, node)) = &self.removed {
            // Another change, which is kept without the one before it, may have replaced it.
            if names.get(place) == Some(node) {
                names.remove(place);
            }
        }
        if let Some((place, node)) = &self.added {
            names.insert(place.clone(), *node);
        }
    }
}

/// All directories of a disk.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    names: Directories,
    durable: Directories,
    /// The changes that are not durable, in their order.
    pending: Vec<Change>,
}

impl Tree {
    /// A tree with only durable names.
    fn durable(names: Directories) -> Self {
        Self {
            durable: names.clone(),
            names,
            pending: Vec::new(),
        }
    }

    pub fn at(&self, place: &Place) -> Option<Node> {
        self.names.get(place).copied()
    }

    /// The file or directory with this path, such as `blobs/.layout`.
    pub fn named(&self, path: &str) -> Option<Node> {
        path.split('/').try_fold(ROOT, |directory, name| {
            let name = name.to_owned();
            self.at(&Place { directory, name })
        })
    }

    /// The names in a directory.
    pub fn entries(&self, directory: Node) -> impl Iterator<Item = (&str, Node)> {
        let name = String::new();
        self.names
            .range(Place { directory, name }..)
            .take_while(move |(place, _)| place.directory == directory)
            .map(|(place, &node)| (place.name.as_str(), node))
    }

    /// The paths of all files and directories, those of a directory after its own.
    pub fn paths(&self) -> Vec<(String, Node)> {
        let mut paths = Vec::new();
        self.add_paths(ROOT, "", &mut paths);
        paths
    }

    fn add_paths(&self, directory: Node, prefix: &str, paths: &mut Vec<(String, Node)>) {
        for (name, node) in self.entries(directory) {
            let path = format!("{prefix}{name}");
            paths.push((path.clone(), node));
            self.add_paths(node, &format!("{path}/"), paths);
        }
    }

    /// The number of names of a file.
    pub fn links(&self, node: Node) -> usize {
        self.names.values().filter(|&&it| it == node).count()
    }

    /// Whether a file has a name, or may have one after a power cut.
    pub fn may_be_named(&self, node: Node) -> bool {
        let mut added = self.pending.iter().filter_map(|it| it.added.as_ref());
        let mut named = self.names.values().chain(self.durable.values());
        node == ROOT || named.any(|&it| it == node) || added.any(|(_, it)| *it == node)
    }

    pub fn add(&mut self, place: Place, node: Node) {
        self.change(None, Some((place, node)));
    }

    pub fn remove(&mut self, place: &Place) {
        let removed = self.at(place).map(|node| (place.clone(), node));
        self.change(removed, None);
    }

    pub fn rename(&mut self, from: &Place, to: &Place) {
        let Some(node) = self.at(from) else { return };
        self.change(Some((from.clone(), node)), Some((to.clone(), node)));
    }

    fn change(&mut self, removed: Option<(Place, Node)>, added: Option<(Place, Node)>) {
        let change = Change { removed, added };
        change.carry_out(&mut self.names);
        self.pending.push(change);
    }

    /// Makes the names in a directory durable, in the order of their changes.
    pub fn sync(&mut self, directory: Node) {
        let (durable, mut pending): (Vec<Change>, Vec<Change>) = self
            .pending
            .drain(..)
            .partition(|it| it.directory() == Some(directory));
        for change in durable {
            if let Some(removed) = &change.removed {
                // The changes that led to the old name can no longer be lost or kept alone.
                pending.retain(|earlier| {
                    let led_here = earlier.added.as_ref() == Some(removed);
                    if led_here {
                        earlier.carry_out(&mut self.durable);
                    }
                    !led_here
                });
            }
            change.carry_out(&mut self.durable);
        }
        self.pending = pending;
    }

    /// The names after a power cut, all of them durable. A directory that is lost takes its
    /// names with it.
    pub fn cut(&self, names: Names, rng: &mut Rng) -> Self {
        let mut left = self.durable.clone();
        let first = rng.below(self.pending.len() + 1);
        for (nth, change) in self.pending.iter().enumerate() {
            let is_kept = match names {
                Names::Lost => false,
                Names::Kept => true,
                Names::Journal => nth < first,
                Names::Any => rng.flip(),
            };
            if is_kept {
                change.carry_out(&mut left);
            }
        }
        let all = Self::durable(left);
        let mut reachable: Vec<Node> = all.paths().into_iter().map(|(_, node)| node).collect();
        reachable.push(ROOT);
        let mut left = all.names;
        left.retain(|place, _| reachable.contains(&place.directory));
        Self::durable(left)
    }
}
