//! Which part of the work this process does: given, or found in what a scheduler says.

use std::str::FromStr;

use clap::Args;
use moeprune::Error;
use moeprune_core::PartOf;

/// Which part of the work is done.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Parts")]
pub(crate) struct PartArgs {
    /// Do part I of N (from 1), as 3/8; `auto`: as Slurm, torchrun or a Kubernetes Job says
    #[arg(long, value_name = "I/N|auto")]
    part: Option<PartChoice>,
    /// Number of parts. An array of Slurm does not say it: a part that is started again is an array of one
    #[arg(long, value_name = "N", value_parser = number_of_parts)]
    parts: Option<usize>,
}

/// What `--part` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartChoice {
    /// As the environment says.
    Auto,
    /// This one.
    Given(PartOf),
}

impl FromStr for PartChoice {
    type Err = moeprune_core::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given) }
    }
}

fn number_of_parts(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().and_then(|parts| PartOf::new(1, parts).ok());
    number
        .map(PartOf::of)
        .ok_or_else(|| format!("`{text}` is not a number of parts, from 1 to {}", PartOf::MOST))
}

impl PartArgs {
    /// The part that this process does; `None` without `--part`.
    ///
    /// # Errors
    /// If the environment does not say which part it is, or contradicts the options.
    pub(crate) fn part(&self) -> Result<Option<PartOf>, Error> {
        self.part_in(&|name| std::env::var(name).ok())
    }

    /// Number of parts, without `--part`: all are done here.
    pub(crate) fn parts_here(&self) -> Option<usize> {
        self.parts.filter(|_| self.part.is_none())
    }

    fn part_in(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<PartOf>, Error> {
        match (self.part, self.parts) {
            (None, _) => Ok(None),
            (Some(PartChoice::Given(part)), Some(parts)) if part.of() != parts => request(format!(
                "--part {part} and --parts {parts} contradict each other; leave --parts out"
            )),
            (Some(PartChoice::Given(part)), _) => Ok(Some(part)),
            (Some(PartChoice::Auto), parts) => Surroundings { environment, parts }.part().map(Some),
        }
    }
}

fn request<T>(problem: String) -> Result<T, Error> {
    Err(Error::Request(problem))
}

/// What schedulers say of a process.
struct Surroundings<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// What `--parts` says.
    parts: Option<usize>,
}

/// The task of an array of jobs, which counts as `--array` says.
const ARRAY: &str = "SLURM_ARRAY_TASK_ID";

/// Variables that count processes from 0, each with the one that says how many there are.
const RANKS: [(&str, Option<&str>); 3] = [
    ("SLURM_PROCID", Some("SLURM_NTASKS")),
    ("RANK", Some("WORLD_SIZE")),
    ("JOB_COMPLETION_INDEX", None),
];

impl Surroundings<'_> {
    fn part(&self) -> Result<PartOf, Error> {
        if let Some(task) = self.number(ARRAY)? {
            return self.part_of_array(task);
        }
        let mut found: Vec<(&str, PartOf)> = Vec::new();
        let mut alone = None;
        for (rank, size) in RANKS {
            let Some(index) = self.number(rank)? else { continue };
            let said = size.map(|size| self.number(size)).transpose()?.flatten();
            // A job's own script is process 0 of 1, and may start any number of others.
            match (index, said) {
                (0, Some(1)) => alone = size,
                _ => found.push((rank, self.part_of_rank((rank, index), (size, said))?)),
            }
        }
        match found[..] {
            [] => match (alone, self.parts) {
                (None, _) => request(NO_SCHEDULER.into()),
                (Some(_), None | Some(1)) => Ok(PartOf::WHOLE),
                (Some(size), Some(parts)) => request(format!(
                    "{size} is 1 and --parts {parts}; start so many tasks, or an array, or pass the part itself: --part I/N"
                )),
            },
            [(first, part), ref others @ ..] => {
                match others.iter().find(|(_, other)| *other != part) {
                    None => Ok(part),
                    Some((other, is)) => request(format!(
                        "{first} says part {part} and {other} part {is}; pass the part itself: --part I/N"
                    )),
                }
            }
        }
    }

    fn part_of_array(&self, task: usize) -> Result<PartOf, Error> {
        if task == 0 {
            let parts = self.parts.map_or_else(|| "N".to_owned(), |parts| parts.to_string());
            return request(format!(
                "{ARRAY} is 0, and parts count from 1; submit with --array=1-{parts}"
            ));
        }
        let Some(parts) = self.parts else {
            return request(format!(
                "--part auto in an array ({ARRAY} is {task}) needs the number of parts: --parts N, the same in each \
                 task and for each part that is started again"
            ));
        };
        PartOf::new(task, parts).or_else(|_| {
            request(format!(
                "{ARRAY} is {task}, and there are {parts} parts; submit with --array=1-{parts}"
            ))
        })
    }

    fn part_of_rank(
        &self,
        (rank, index): (&str, usize),
        (size, said): (Option<&str>, Option<usize>),
    ) -> Result<PartOf, Error> {
        let parts = match (said, self.parts) {
            (Some(said), Some(parts)) if said != parts => {
                let size = size.unwrap_or_default();
                return request(format!(
                    "{size} is {said} and --parts {parts}; leave --parts out, or pass the part itself: --part I/N"
                ));
            }
            (Some(parts), _) | (None, Some(parts)) => parts,
            (None, None) => {
                return request(format!(
                    "{rank} is {index}, and the number of parts is not known: pass --parts N"
                ));
            }
        };
        let part = index.checked_add(1).and_then(|index| PartOf::new(index, parts).ok());
        part.map_or_else(
            || request(format!("{rank} is {index}, which is not one of {parts} parts, from 0")),
            Ok,
        )
    }

    fn number(&self, variable: &str) -> Result<Option<usize>, Error> {
        let Some(value) = (self.environment)(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => request(format!("{variable} is `{value:.40}`, which is not a number")),
        }
    }
}

const NO_SCHEDULER: &str = "--part auto finds none of SLURM_ARRAY_TASK_ID, SLURM_PROCID, RANK and JOB_COMPLETION_INDEX \
                            in the environment; pass the part itself: --part I/N";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        part: &str,
        parts: Option<usize>,
        environment: &[(&str, &str)],
        expected: Result<&str, &str>,
    ) {
        let args = PartArgs { part: Some(part.parse().unwrap()), parts };
        let of = |name: &str| {
            environment.iter().find(|(is, _)| *is == name).map(|(_, value)| (*value).to_owned())
        };
        let found = args
            .part_in(&of)
            .map(|part| part.unwrap().to_string())
            .map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{environment:?}"),
            (Err(found), Err(expected)) => {
                assert!(found.contains(expected), "{environment:?}: {found}")
            }
            (found, expected) => panic!("{environment:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn given_parts_need_no_environment() {
        check("3/8", None, &[], Ok("3/8"));
        check("3/8", Some(8), &[(ARRAY, "1")], Ok("3/8"));
        check("3/8", Some(4), &[], Err("contradict"));
        let none = PartArgs { part: None, parts: Some(4) };
        assert_eq!((none.part_in(&|_| None).unwrap(), none.parts_here()), (None, Some(4)));
    }

    #[test]
    fn an_array_counts_from_one_and_does_not_say_how_many() {
        check("auto", Some(4), &[(ARRAY, "2")], Ok("2/4"));
        // Resubmitted alone: the count of the array is 1.
        check(
            "auto",
            Some(4),
            &[(ARRAY, "2"), ("SLURM_ARRAY_TASK_COUNT", "1"), ("SLURM_NTASKS", "1")],
            Ok("2/4"),
        );
        check(
            "auto",
            Some(4),
            &[(ARRAY, "2"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")],
            Ok("2/4"),
        );
        check("auto", None, &[(ARRAY, "2"), ("SLURM_ARRAY_TASK_COUNT", "4")], Err("--parts N"));
        check("auto", Some(4), &[(ARRAY, "0")], Err("--array=1-4"));
        check("auto", None, &[(ARRAY, "0")], Err("--array=1-N"));
        check("auto", Some(4), &[(ARRAY, "5")], Err("--array=1-4"));
        check("auto", Some(4), &[(ARRAY, "x")], Err("not a number"));
    }

    #[test]
    fn ranks_count_from_zero() {
        check("auto", None, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], Ok("1/4"));
        check("auto", None, &[("RANK", "3"), ("WORLD_SIZE", "4")], Ok("4/4"));
        check("auto", Some(8), &[("JOB_COMPLETION_INDEX", "7")], Ok("8/8"));
        check("auto", None, &[("JOB_COMPLETION_INDEX", "7")], Err("--parts N"));
        check("auto", None, &[("RANK", "4"), ("WORLD_SIZE", "4")], Err("not one of 4 parts"));
        check("auto", Some(8), &[("RANK", "3"), ("WORLD_SIZE", "4")], Err("leave --parts out"));
        check("auto", None, &[], Err("pass the part itself"));
        check(
            "auto",
            None,
            &[("RANK", "18446744073709551615"), ("WORLD_SIZE", "4")],
            Err("not one of"),
        );
    }

    #[test]
    fn the_process_that_a_job_starts_with_says_nothing() {
        let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")];
        check("auto", None, &[batch[0], batch[1], ("RANK", "2"), ("WORLD_SIZE", "4")], Ok("3/4"));
        check(
            "auto",
            Some(4),
            &[batch[0], batch[1], ("RANK", "2"), ("WORLD_SIZE", "4")],
            Ok("3/4"),
        );
        check("auto", None, &batch, Ok("1/1"));
        check("auto", Some(8), &batch, Err("SLURM_NTASKS is 1"));
        let task = [("SLURM_PROCID", "2"), ("SLURM_NTASKS", "4")];
        check("auto", None, &[task[0], task[1], ("RANK", "2"), ("WORLD_SIZE", "4")], Ok("3/4"));
        check(
            "auto",
            None,
            &[task[0], task[1], ("RANK", "0"), ("WORLD_SIZE", "2")],
            Err("--part I/N"),
        );
    }
}
