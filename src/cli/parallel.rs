//! Work on several storages side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` with each item, in up to `max_threads` threads, and returns the results in the
/// order of the items. This thread works too, so that the limit on threads may be reached.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    max_threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return;
            };
            let result = work(item);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(max_threads) {
            let builder = thread::Builder::new().name("storage".to_owned());
            // Fewer threads suffice.
            if builder.spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn the_results_have_the_order_of_the_items() {
        let items: Vec<_> = (0..100).collect();
        for max_threads in [1, 3, 1000] {
            let results = map(&items, max_threads, |n| n * 2);
            assert!(results.iter().zip(&items).all(|(two, one)| *two == 2 * one));
            assert_eq!(results.len(), items.len());
        }
        assert!(map(&[0; 0], 9, |n| *n).is_empty());
    }

    #[test]
    fn the_items_are_worked_on_at_the_same_time() {
        let all = Barrier::new(20);
        assert_eq!(map(&[(); 20], 20, |()| all.wait().is_leader()).len(), 20);
    }
}
