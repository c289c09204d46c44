//! What was promised against what was seen: rows, the table of them, and the file.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tidegate_figures::{table, write};

use super::timeline::Observed;

/// One promise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub phase: String,
    pub promise: String,
    pub expected: String,
    pub observed: String,
    pub ok: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    pub promises: Vec<Row>,
    pub phases: Vec<Observed>,
}

impl Row {
    pub fn new(phase: &str, promise: &str, expected: impl Into<String>, observed: impl Into<String>, ok: bool) -> Self {
        let (phase, promise) = (phase.to_owned(), promise.to_owned());
        Self { phase, promise, expected: expected.into(), observed: observed.into(), ok }
    }
}

impl Report {
    /// What every phase promises, then each phase's own.
    pub fn new(phases: Vec<Observed>, own: Vec<Row>) -> Self {
        let mut promises = Vec::new();
        let mut own_by_phase = own;
        for phase in &phases {
            promises.extend(promises_of(phase));
            let (its, others) = own_by_phase.into_iter().partition(|row| row.phase == phase.name);
            promises.extend::<Vec<_>>(its);
            own_by_phase = others;
        }
        promises.extend(own_by_phase);
        let ok = !promises.is_empty() && promises.iter().all(|row| row.ok);
        Self { ok, promises, phases }
    }

    pub fn broken(&self) -> usize {
        self.promises.iter().filter(|row| !row.ok).count()
    }

    /// A phase is named once, at its first row.
    pub fn table(&self) -> String {
        let mut lines = vec![["phase", "promise", "expected", "observed", "ok"].map(str::to_owned)];
        let mut last = "";
        for row in &self.promises {
            let phase = if row.phase == last { "" } else { &row.phase };
            last = &row.phase;
            let ok = if row.ok { "yes" } else { "NO" };
            lines.push([phase, &row.promise, &row.expected, &row.observed, ok].map(str::to_owned));
        }
        table(&lines)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }
}

fn promises_of(phase: &Observed) -> [Row; 3] {
    let row = |promise, expected: String, observed: String, ok| Row::new(&phase.name, promise, expected, observed, ok);
    let split = phase.canary_users == phase.canary_users_expected && phase.answers_elsewhere == 0;
    [
        row(
            "no request fails",
            "0 failed".to_owned(),
            format!("{} of {}", phase.failed, phase.requests),
            phase.failed == 0 && phase.requests > 0,
        ),
        row(
            "everyone where computed",
            format!("{} of {} users on v2", phase.canary_users_expected, phase.users),
            format!("{} on v2, {} answers elsewhere", phase.canary_users, phase.answers_elsewhere),
            split && phase.users > 0,
        ),
        row(
            "sticky",
            "0 users on two versions".to_owned(),
            phase.users_on_two_versions.to_string(),
            phase.users_on_two_versions == 0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str) -> Observed {
        Observed {
            name: name.to_owned(),
            seconds: 5.0,
            requests: 100,
            failed: 0,
            canary_share: 0.1,
            users: 50,
            canary_users: 5,
            canary_users_expected: 5,
            answers_elsewhere: 0,
            users_on_two_versions: 0,
            p99_ms: 1.0,
        }
    }

    #[test]
    fn one_broken_promise_breaks_the_report() {
        assert!(Report::new(vec![phase("a")], Vec::new()).ok);
        let failed = Observed { failed: 1, ..phase("a") };
        let lost = Observed { canary_users: 4, ..phase("a") };
        let strayed = Observed { answers_elsewhere: 1, ..phase("a") };
        let wandered = Observed { users_on_two_versions: 1, ..phase("a") };
        let silent = Observed { requests: 0, ..phase("a") };
        for broken in [failed, lost, strayed, wandered, silent] {
            let report = Report::new(vec![phase("b"), broken], Vec::new());
            assert_eq!((report.ok, report.broken()), (false, 1));
        }
        assert!(!Report::new(vec![phase("a")], vec![Row::new("a", "x", "1", "2", false)]).ok);
        assert!(!Report::new(Vec::new(), Vec::new()).ok, "nothing was seen");
    }

    #[test]
    fn a_phase_has_its_own_promises_beside_it() {
        let own = vec![Row::new("all", "p", "", "", true), Row::new("a", "q", "", "", true)];
        let report = Report::new(vec![phase("a"), phase("b")], own);
        let phases: Vec<_> = report.promises.iter().map(|row| &*row.phase).collect();
        assert_eq!(phases, ["a", "a", "a", "a", "b", "b", "b", "all"]);
        let table = report.table();
        assert_eq!(table.lines().filter(|line| line.starts_with('a')).count(), 2, "{table}");
    }
}
