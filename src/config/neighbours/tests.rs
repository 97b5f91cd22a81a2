//! Masters in the same directory.

use super::*;

#[test]
fn masters_in_the_same_directory_are_neighbours() {
    let all = [
        "/srv/var",
        "/srv/var/catalog.fs",
        "/srv/b.fs",
        "/other/c.fs",
    ];
    let set = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    // A directory, a file in it, and a file in its parent.
    for (own, of_file, of_directory) in [
        ("/srv/var", &["b.fs"][..], &["catalog.fs"][..]),
        ("/srv/var/catalog.fs", &["Data.fs"], &[]),
        ("/srv/a.fs", &["b.fs", "var"], &[]),
    ] {
        let expected = CoveredNames {
            of_file: set(of_file),
            of_directory: set(of_directory),
        };
        let others: Vec<_> = (all.iter())
            .filter(|it| **it != own)
            .map(PathBuf::from)
            .collect();
        assert_eq!(names(Path::new(own), &others), expected, "{own}");
    }
}
