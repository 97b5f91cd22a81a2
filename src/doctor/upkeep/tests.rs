use super::super::check::Level;
use super::*;

#[test]
fn a_long_scan_is_reported() {
    assert_eq!(index(MAX_SCAN).level, Level::Ok);
    assert_eq!(index(MAX_SCAN + 1).level, Level::Warn);
}
