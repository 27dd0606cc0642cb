//! Which way is the fastest.

use std::time::Duration;

use super::way::{Means, Way};

/// A trial is this part of all bytes, so that all trials together are a small part.
const PART: u64 = 128;

/// Bytes of the shortest trial, since of fewer a time says little, and of the longest.
const SHORTEST: u64 = 8 << 20;
const LONGEST: u64 = 32 << 20;

/// Fewer bytes go the likeliest way: there is too little to gain by trying others.
const WORTH_TRYING: u64 = 256 << 20;

/// From so many bytes on, each way is tried twice.
const WORTH_ROUNDS: u64 = 4 << 30;

/// Bytes after which ways are measured again: what else uses the disk may have changed.
const AGAIN: u64 = 16 << 30;

/// Ways slower than this share of the fastest are not tried a second time.
const HOPEFUL: f64 = 0.4;

/// A way is as good as another from this share of its rate on.
const EQUAL: f64 = 0.95;

/// What the rate of a way that fills the system's cache counts for: a short trial sees less of what that costs.
const FILLS_CACHE: f64 = 0.9;

/// Bytes per second that no disk is written at: blocks are shared, and no other way needs to be tried.
const SHARED: f64 = 4e9;

/// How often each way is tried at most.
const ROUNDS: usize = 2;

const MB: u64 = 1 << 20;

/// The ways of memory into a file, the likeliest first.
const WRITES: [Way; 4] = [
    Way::new(Means::Direct, 4, 4 * MB),
    Way::new(Means::Direct, 8, 2 * MB),
    Way::new(Means::Direct, 2, 4 * MB),
    Way::new(Means::Cached, 2, MB),
];

const SYSTEM: Way = Way::new(Means::System, 2, 8 * MB);

/// What goes which way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) way: Way,
    /// How many bytes at most.
    pub(super) bytes: u64,
    /// Whether the time is wanted that it takes until they are on the disk.
    pub(super) measured: bool,
    /// Whether the way is known to share blocks.
    pub(super) shares: bool,
}

/// Tries ways in turns and keeps to the fastest.
#[derive(Debug)]
pub(super) struct Pace {
    candidates: Vec<Candidate>,
    /// How many bytes went the way that was chosen, if one is.
    settled: Option<(Way, u64)>,
    shares: bool,
    /// Bytes that went before.
    seen: u64,
}

#[derive(Debug)]
struct Candidate {
    way: Way,
    /// The best rate, in bytes per second.
    rate: f64,
    tries: usize,
}

impl Pace {
    /// Of copies within one file system; `first_within` if it has an operation for that.
    pub(super) fn of_copies(first_within: bool) -> Self {
        let mut ways = WRITES.to_vec();
        ways.insert(if first_within { 0 } else { ways.len() }, SYSTEM);
        Self::of(&ways)
    }

    /// Of writes from memory, and of copies to another file system.
    pub(super) fn of_writes() -> Self {
        Self::of(&WRITES)
    }

    fn of(ways: &[Way]) -> Self {
        let candidate = |&way: &Way| Candidate { way, rate: 0.0, tries: 0 };
        Self {
            candidates: ways.iter().map(candidate).collect(),
            settled: None,
            shares: false,
            seen: 0,
        }
    }

    /// Which way the next bytes go, of which there are `left`.
    pub(super) fn next(&self, left: u64) -> Trial {
        let shares = self.shares;
        if let Some((way, done)) = self.settled {
            let bytes = left.min(AGAIN.saturating_sub(done).max(1));
            return Trial { way, bytes, measured: false, shares };
        }
        let all = self.seen + left;
        let next = (0..rounds(all)).find_map(|round| {
            let fastest = self.fastest();
            self.candidates.iter().find(|candidate| {
                candidate.tries == round && (round == 0 || candidate.rate >= HOPEFUL * fastest)
            })
        });
        match next {
            Some(candidate) if left >= SHORTEST => {
                let bytes = (all / PART).clamp(SHORTEST, LONGEST).min(left);
                Trial { way: candidate.way, bytes, measured: true, shares }
            }
            _ => Trial { way: self.best(), bytes: left, measured: false, shares },
        }
    }

    /// Notes how long it took, and whether the system refused that way.
    pub(super) fn took(&mut self, trial: Trial, time: Duration, refused: bool) {
        self.seen = self.seen.saturating_add(trial.bytes);
        if refused && self.candidates.len() > 1 {
            self.candidates.retain(|candidate| candidate.way != trial.way);
            self.settled = self.settled.filter(|(way, _)| *way != trial.way);
            self.shares = false;
        } else if let Some((_, done)) = &mut self.settled {
            *done = done.saturating_add(trial.bytes);
            match *done >= AGAIN {
                true if self.shares => *done = 0,
                true => {
                    self.settled = None;
                    self.candidates.iter_mut().for_each(|c| (c.rate, c.tries) = (0.0, 0));
                }
                false => {}
            }
            return;
        } else if trial.measured
            && let Some(tried) = self.candidates.iter_mut().find(|c| c.way == trial.way)
        {
            tried.rate = tried.rate.max(trial.bytes as f64 / time.as_secs_f64().max(1e-9));
            tried.tries += 1;
            self.shares = tried.way.means == Means::System && tried.rate >= SHARED;
        }
        let fastest = self.fastest();
        let is_done =
            |c: &Candidate| c.tries >= ROUNDS || c.tries > 0 && c.rate < HOPEFUL * fastest;
        if self.settled.is_none() && (self.shares || self.candidates.iter().all(is_done)) {
            self.settled = Some((self.best(), 0));
        }
    }

    fn fastest(&self) -> f64 {
        self.candidates.iter().map(|candidate| candidate.rate).fold(0.0, f64::max)
    }

    /// The likeliest of the fastest ways.
    fn best(&self) -> Way {
        let most = self.candidates.iter().map(Candidate::worth).fold(0.0, f64::max);
        let best = self.candidates.iter().find(|c| c.worth() >= EQUAL * most);
        best.unwrap_or(&self.candidates[0]).way
    }
}

/// How often each way is tried, of so many bytes.
fn rounds(bytes: u64) -> usize {
    match bytes {
        0..WORTH_TRYING => 0,
        WORTH_TRYING..WORTH_ROUNDS => 1,
        WORTH_ROUNDS.. => ROUNDS,
    }
}

impl Candidate {
    fn worth(&self) -> f64 {
        match self.way.means {
            Means::Direct => self.rate,
            Means::Cached | Means::System => FILLS_CACHE * self.rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves bytes of which each way has a rate, and returns what went which way.
    fn moved(mut pace: Pace, rate: &dyn Fn(Way) -> f64, bytes: u64) -> Vec<(Way, u64)> {
        let (mut left, mut log) = (bytes, Vec::new());
        while left > 0 {
            let trial = pace.next(left);
            assert!(0 < trial.bytes && trial.bytes <= left);
            let time = Duration::from_secs_f64(trial.bytes as f64 / rate(trial.way));
            pace.took(trial, time, false);
            log.push((trial.way, trial.bytes));
            left -= trial.bytes;
        }
        log
    }

    #[test]
    fn the_fastest_is_kept() {
        for fastest in WRITES.into_iter().chain([SYSTEM]) {
            let rate = |way| if way == fastest { 3e8 } else { 1e8 };
            let log = moved(Pace::of_copies(false), &rate, 4 << 30);
            let rest: u64 = log.iter().filter(|(way, _)| *way != fastest).map(|(_, b)| b).sum();
            assert_eq!(rest, (WRITES.len() as u64) * LONGEST, "{fastest:?}");
            assert_eq!(log.last().unwrap().0, fastest);
        }
    }

    #[test]
    fn of_equals_the_first_is_kept() {
        let log = moved(Pace::of_writes(), &|_| 1e8, 4 << 30);
        assert_eq!(log.len(), ROUNDS * WRITES.len() + 1);
        assert_eq!(log.last().unwrap().0, WRITES[0]);
    }

    #[test]
    fn what_fills_the_cache_must_be_clearly_faster() {
        let check = |cached: f64, expected: Means| {
            let rate = |way: Way| if way.means == Means::Cached { cached } else { 1e8 };
            let log = moved(Pace::of_writes(), &rate, 4 << 30);
            assert_eq!(log.last().unwrap().0.means, expected, "{cached}");
        };
        check(1.1e8, Means::Direct);
        check(1.2e8, Means::Cached);
    }

    #[test]
    fn what_shares_blocks_is_kept_at_once() {
        let rate = |way: Way| if way.means == Means::System { 1e11 } else { 1e8 };
        let log = moved(Pace::of_copies(true), &rate, 40 << 30);
        assert!(log.iter().all(|(way, _)| *way == SYSTEM), "{log:?}");
        let mut pace = Pace::of_copies(true);
        assert!(!pace.next(1 << 30).shares);
        pace.took(pace.next(1 << 30), Duration::from_micros(10), false);
        assert!(pace.next(1 << 30).shares);
    }

    #[test]
    fn little_is_not_measured() {
        let mut pace = Pace::of_writes();
        for left in [1, SHORTEST, WORTH_TRYING - 1] {
            let trial = pace.next(left);
            assert_eq!((trial.way, trial.bytes, trial.measured), (WRITES[0], left, false));
        }
        assert!(pace.next(WORTH_TRYING).measured);
        // What went before counts.
        pace.took(pace.next(WORTH_TRYING - 1), Duration::from_secs(1), false);
        assert!(!pace.next(SHORTEST - 1).measured);
        assert!(pace.next(SHORTEST).measured);
    }

    #[test]
    fn trials_are_a_small_part() {
        let check = |bytes: u64, trials: usize, each: u64| {
            let log = moved(Pace::of_copies(false), &|_| 1e8, bytes);
            assert_eq!(log.len(), trials + 1, "{bytes}");
            assert!(log[..trials].iter().all(|(_, b)| *b == each), "{bytes}: {log:?}");
        };
        let ways = WRITES.len() + 1;
        check(WORTH_TRYING - 1, 0, 0);
        check(WORTH_TRYING, ways, SHORTEST);
        check(2 << 30, ways, (2 << 30) / PART);
        check(WORTH_ROUNDS, ROUNDS * ways, LONGEST);
        check(15 << 30, ROUNDS * ways, LONGEST);
    }

    #[test]
    fn ways_are_measured_again() {
        let log = moved(Pace::of_writes(), &|_| 1e8, 4 * AGAIN);
        let trials = log.iter().filter(|(way, _)| *way == WRITES[3]).count();
        assert!(trials >= 3 * ROUNDS, "{trials}");
    }

    #[test]
    fn what_is_refused_is_not_tried_again() {
        let mut pace = Pace::of_copies(true);
        let mut tried = Vec::new();
        for _ in 0..30 {
            let trial = pace.next(1 << 30);
            tried.push(trial.way.means);
            pace.took(trial, Duration::from_secs(1), trial.way.means != Means::Cached);
        }
        assert_eq!(tried.iter().filter(|m| **m == Means::System).count(), 1);
        assert_eq!(tried.iter().filter(|m| **m == Means::Direct).count(), 3);
        assert_eq!(pace.next(1 << 30).way.means, Means::Cached);
    }
}
