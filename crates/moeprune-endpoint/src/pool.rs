//! Several calls at a time, with a bound; results in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use crate::Error;

/// How often it is looked whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Work that threads share: one of several jobs done, with a flag that says when to give up.
pub(crate) type Work<J, R> = Arc<dyn Fn(&J, &AtomicBool) -> Result<R, Error> + Send + Sync>;

/// Ends the work when it is dropped: threads finish what they are at and take nothing new.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does all jobs on so many threads. `done` receives each result when it is there; the first error ends the work.
///
/// Threads are not waited for where it ends early: a call that is under way ends with its timeout.
pub(crate) fn run<J, R>(
    jobs: Vec<J>,
    threads: usize,
    work: Work<J, R>,
    should_stop: &dyn Fn() -> bool,
    done: &mut dyn FnMut(usize, &R) -> Result<(), Error>,
) -> Result<Vec<R>, Error>
where
    J: Send + Sync + 'static,
    R: Send + 'static,
{
    let (count, jobs) = (jobs.len(), Arc::new(jobs));
    let (next, cancel) = (Arc::new(AtomicUsize::new(0)), Cancel(Arc::new(AtomicBool::new(false))));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..threads.min(count) {
        let (jobs, work, next) = (Arc::clone(&jobs), Arc::clone(&work), Arc::clone(&next));
        let (cancelled, sender) = (Arc::clone(&cancel.0), sender.clone());
        std::thread::spawn(move || {
            while !cancelled.load(Ordering::Relaxed) {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(place) else { break };
                if sender.send((place, work(job, &cancelled))).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut results: Vec<Option<R>> = Vec::new();
    results.resize_with(count, || None);
    let mut missing = count;
    while missing > 0 {
        if should_stop() {
            return Err(Error::Stopped);
        }
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok((place, result)) => {
                let result = result?;
                done(place, &result)?;
                results[place] = Some(result);
                missing -= 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            // A thread ended without a result, which only a panic does.
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Lost { missing }),
        }
    }
    Ok(results.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Instant};

    use super::*;

    fn quiet(_: usize, _: &usize) -> Result<(), Error> {
        Ok(())
    }

    #[test]
    fn results_are_in_order_with_any_number_of_threads() {
        for (jobs, threads) in [(0, 4), (1, 4), (7, 1), (7, 3), (40, 64)] {
            let work: Work<usize, usize> = Arc::new(|job, _| {
                std::thread::sleep(Duration::from_micros((job * 7919 % 13) as u64 * 100));
                Ok(job * job)
            });
            let mut places = Vec::new();
            let mut done = |place, _: &usize| {
                places.push(place);
                Ok(())
            };
            let found = run((0..jobs).collect(), threads, work, &|| false, &mut done).unwrap();
            assert_eq!(found, (0..jobs).map(|job| job * job).collect::<Vec<_>>());
            places.sort_unstable();
            assert_eq!(places, (0..jobs).collect::<Vec<_>>());
        }
    }

    #[test]
    fn never_more_at_a_time_than_allowed() {
        let at_once = Arc::new(Mutex::new((0, 0)));
        let counted = Arc::clone(&at_once);
        let work: Work<usize, usize> = Arc::new(move |job, _| {
            let mut now = counted.lock().unwrap();
            now.0 += 1;
            now.1 = now.1.max(now.0);
            drop(now);
            std::thread::sleep(Duration::from_millis(2));
            counted.lock().unwrap().0 -= 1;
            Ok(*job)
        });
        run((0..30).collect(), 3, work, &|| false, &mut quiet).unwrap();
        assert_eq!(at_once.lock().unwrap().1, 3);
    }

    #[test]
    fn the_first_error_ends_it_and_nothing_new_begins() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let work: Work<usize, usize> = Arc::new(move |job, cancelled| {
            counted.fetch_add(1, Ordering::Relaxed);
            if *job == 3 {
                return Err(Error::NoRoom { tokens: 1, context: 1 });
            }
            // Stands for a call that goes on until it is cancelled.
            while *job > 3 && !cancelled.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(*job)
        });
        let error = run((0..1000).collect(), 2, work, &|| false, &mut quiet).unwrap_err();
        assert!(matches!(error, Error::NoRoom { .. }), "{error}");
        assert!(begun.load(Ordering::Relaxed) < 20, "{begun:?}");
    }

    #[test]
    fn a_stop_does_not_wait_for_calls() {
        let work: Work<usize, usize> = Arc::new(|job, cancelled| {
            while !cancelled.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(*job)
        });
        let began = Instant::now();
        let stop = move || began.elapsed() > Duration::from_millis(10);
        let error = run(vec![0, 1], 2, work, &stop, &mut quiet).unwrap_err();
        assert!(error.is_stop(), "{error}");
    }

    #[test]
    fn what_cannot_be_kept_ends_it() {
        let work: Work<usize, usize> = Arc::new(|job, _| Ok(*job));
        let mut full = |_, _: &usize| Err(Error::Keep("disk full".into()));
        let error = run(vec![0, 1], 2, work, &|| false, &mut full).unwrap_err();
        assert!(matches!(error, Error::Keep(_)), "{error}");
    }
}
