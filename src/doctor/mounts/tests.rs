use super::*;

const TABLE: &str = "\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 27 0:40 / /mnt rw,relatime - tmpfs tmpfs rw
31 30 0:41 / /mnt/the\\040master ro,relatime shared:7 master:2 - nfs4 first:/srv rw,vers=4.2,soft
broken line
";

#[test]
fn the_innermost_mount_is_found_with_all_options() {
    let find = |path: &str| Mount::find(TABLE, Path::new(path)).unwrap();
    let master = find("/mnt/the master/Data.fs");
    assert_eq!(master.kind, "nfs4");
    assert_eq!(master.point, Path::new("/mnt/the master"));
    assert!(master.has("soft") && !master.is_writable());
    assert_eq!(find("/mnt/the masters").kind, "tmpfs");
    assert!(find("/srv").is_writable());
}
