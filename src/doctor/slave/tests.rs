use super::super::check::Level;
use super::*;

#[test]
fn a_first_copy_needs_more_space_than_the_master_has() {
    for (free, has_slave, level) in [
        (999, false, Level::Fail),
        (1000, false, Level::Warn),
        (1099, false, Level::Warn),
        (1100, false, Level::Ok),
        (999, true, Level::Warn),
        (1000, true, Level::Ok),
    ] {
        let check = judge_space("/srv", free, has_slave, 1000);
        assert_eq!(check.level, level, "{check:?}");
    }
}

#[test]
fn another_user_than_that_of_the_slave_is_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
    let own = geteuid().as_raw();
    for (user, level) in [(own, Level::Ok), (own + 1, Level::Fail)] {
        assert_eq!(owner(&paths, None, user).level, level);
    }
}
