//! Independent runs on several threads.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Does all `jobs` on `threads` threads and returns what came of them in their order. `tell` is called after each.
///
/// # Errors
/// The first error in the order of the jobs.
pub fn map<J: Sync, D: Send, E: Send>(
    jobs: &[J],
    threads: usize,
    work: &(dyn Fn(&J) -> Result<D, E> + Sync),
    tell: &(dyn Fn() + Sync),
) -> Result<Vec<D>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let row = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(row) else { break };
                let result = work(job);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((row, result));
                tell();
            }
        };
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|entry| entry.0);
    done.into_iter().map(|entry| entry.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs_and_the_first_error_wins() {
        let told = AtomicUsize::new(0);
        let jobs: Vec<u32> = (0..100).collect();
        let tell = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let doubled = map(&jobs, 3, &|job| Ok::<_, u32>(job * 2), &tell).unwrap();
        assert_eq!(doubled, jobs.iter().map(|job| job * 2).collect::<Vec<_>>());
        assert_eq!(told.into_inner(), 100);
        assert_eq!(map(&jobs, 3, &|job| if job % 40 == 7 { Err(*job) } else { Ok(()) }, &|| ()), Err(7));
    }
}
