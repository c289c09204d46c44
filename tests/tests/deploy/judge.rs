//! What is to be said of the requests of a deployment: none that may be repeated failed before its answer began, and of every other
//! failure it is known whose end it was.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Result, ensure};
use tidegate_tests::deploys::{Ended, Kind, Seen, Service};
use tokio::time::Instant;

/// So long after the end of a container a request may still meet it: Envoy hears of it a little later.
const LATER: Duration = Duration::from_secs(1);

pub(crate) struct Judgement {
    asked: BTreeMap<Kind, usize>,
    /// What failed, by kind and by the end that explains it.
    explained: BTreeMap<(Kind, String), usize>,
    /// What must not be.
    wrong: Vec<String>,
    replacements: usize,
    took: Duration,
}

impl Judgement {
    pub(crate) fn of(all: &[Seen], ends: &[Ended], services: &[Service], began: Instant) -> Self {
        let mut judgement = Self {
            asked: BTreeMap::new(),
            explained: BTreeMap::new(),
            wrong: Vec::new(),
            replacements: ends.len(),
            took: began.elapsed(),
        };
        for seen in all {
            *judgement.asked.entry(seen.kind).or_default() += 1;
            if !seen.failed() {
                continue;
            }
            let cause = ends.iter().find(|ended| explains(ended, seen));
            match cause {
                Some(ended) if !(seen.kind.may_be_repeated() && seen.failed_before_headers()) => {
                    *judgement.explained.entry((seen.kind, ended.end.to_string())).or_default() += 1;
                }
                _ => {
                    let from = seen.began.saturating_duration_since(began);
                    let cause = cause.map(|ended| ended.describe(services, began));
                    judgement.wrong.push(format!(
                        "{} to {} from {from:.3?} for {:.3?}: {}, served by {:?}; what ended: {}",
                        seen.kind,
                        services[seen.service].name,
                        seen.ended - seen.began,
                        seen.outcome,
                        seen.served_by,
                        cause.as_deref().unwrap_or("nothing that explains it")
                    ));
                }
            }
        }
        judgement
    }

    pub(crate) fn passes(&self) -> Result<()> {
        let asked = |kind| self.asked.get(&kind).copied().unwrap_or_default();
        for kind in Kind::ALL {
            ensure!(asked(kind) > self.replacements, "it was hardly asked: {self}");
        }
        ensure!(self.wrong.is_empty(), "{self}");
        Ok(())
    }

    #[allow(clippy::print_stdout, reason = "the count of what failed is what a person runs it for")]
    pub(crate) fn say(&self, seed: u64) {
        println!("seed {seed}: {self}");
    }
}

/// It is the container that served it or, where no answer began, the one of its service that was ending meanwhile.
fn explains(ended: &Ended, seen: &Seen) -> bool {
    let same = match seen.container() {
        Some(container) => container == ended.container,
        None => seen.service == ended.service,
    };
    same && seen.began < ended.over + LATER && ended.began < seen.ended
}

impl fmt::Display for Judgement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} containers replaced in {:.1?}", self.replacements, self.took)?;
        for (kind, asked) in &self.asked {
            let failed = self.explained.iter().filter(|((of, _), _)| of == kind);
            write!(formatter, "{kind}: {asked}")?;
            for ((_, end), count) in failed {
                write!(formatter, "; {count} cut by {end}")?;
            }
            writeln!(formatter)?;
        }
        writeln!(formatter, "{} that must not be", self.wrong.len())?;
        for wrong in self.wrong.iter().take(20) {
            writeln!(formatter, "  {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_tests::{deploys::End, load::Outcome};

    use super::*;

    #[test]
    fn only_the_end_of_the_container_that_served_it_explains_a_failure_and_nothing_that_of_a_get_without_an_answer() {
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let services = [Service { name: "shop".to_owned(), host: "shop.localhost".to_owned(), is_grpc: false }];
        let ended = Ended {
            service: 0,
            container: "aaa".to_owned(),
            end: End::Killed,
            began: began + 10 * second,
            over: began + 11 * second,
        };
        let seen = |kind, at: u32, outcome, by: Option<&str>| Seen {
            kind,
            service: 0,
            began: began + at * second,
            ended: began + (at + 1) * second,
            outcome,
            served_by: by.map(str::to_owned),
        };
        let wrong = |seen: Seen| Judgement::of(&[seen], std::slice::from_ref(&ended), &services, began).wrong.len();
        for (kind, at, outcome, by, expected) in [
            (Kind::Get, 10, Outcome::Status(200), Some("v1/bbb"), 0),
            (Kind::Get, 10, Outcome::Status(503), None, 1),
            (Kind::Slow, 10, Outcome::Timeout, None, 1),
            (Kind::Download, 10, Outcome::Body, Some("v1/aaa"), 0),
            (Kind::Download, 10, Outcome::Body, Some("v1/bbb"), 1),
            (Kind::Post, 10, Outcome::Status(503), None, 0),
            (Kind::Post, 5, Outcome::Status(503), None, 1),
            (Kind::Post, 14, Outcome::Status(503), None, 1),
            (Kind::Upgrade, 14, Outcome::Body, Some("v1/aaa"), 1),
        ] {
            assert_eq!(wrong(seen(kind, at, outcome, by)), expected, "{kind} at {at}: {outcome}, {by:?}");
        }
    }
}
