//! The order of exit codes.

use super::*;

/// Every pair, so that no code is compared with only some of the others.
#[test]
fn the_most_severe_exit_code_is_that_of_the_site() {
    let order = [2, 31, 30, 20, 13, 1, 14, 12, 11, 10, 0];
    assert_eq!(SEVERITY.map(|exit| exit as u8), order);
    for (n, worse) in SEVERITY.into_iter().enumerate() {
        for other in SEVERITY.into_iter().skip(n) {
            assert_eq!(Exit::most_severe([worse, other, other]), worse);
            assert_eq!(Exit::most_severe([other, worse]), worse);
        }
    }
    assert_eq!(Exit::most_severe([]), Exit::Success);
}
