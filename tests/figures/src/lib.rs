//! What every bench prints and writes: rows of figures with their budgets, as a table and as JSON, and the statistics that
//! make one figure of many. Measures nothing itself, and depends on little, so that any crate's bench can use it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub compared_with: Option<String>,
    pub ratio: Option<f64>,
    /// What `design.md` or the issue asks for.
    pub budget: Option<String>,
    pub met: Option<bool>,
}

impl Row {
    /// A figure without a budget.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, compared_with: None, ratio: None, budget: None, met: None }
    }

    /// A figure that must not exceed `most`.
    pub fn at_most(name: impl Into<String>, value: f64, most: f64, unit: &'static str) -> Self {
        let budget = Some(format!("≤ {most} {unit}").trim_end().to_owned());
        Self { budget, met: Some(value <= most), ..Self::new(name, value, unit) }
    }

    /// Says what the value is a ratio to; a budget that was set before then judges the ratio's row as it is.
    #[must_use]
    pub fn against(mut self, what: impl Into<String>, ratio: f64) -> Self {
        self.compared_with = Some(what.into());
        self.ratio = Some(ratio);
        self
    }
}

/// As a table, and as the file.
pub fn publish(rows: &[Row], path: &Path) -> Result<String> {
    write(path, &rows)?;
    let mut lines = vec![["figure", "value", "unit", "compared with", "ratio", "budget", "met"].map(str::to_owned)];
    let number = |n: f64| format!("{n:.2}");
    for row in rows {
        lines.push([
            row.name.clone(),
            number(row.value),
            row.unit.to_owned(),
            row.compared_with.clone().unwrap_or_default(),
            row.ratio.map(|r| format!("{r:.3}")).unwrap_or_default(),
            row.budget.clone().unwrap_or_default(),
            row.met.map(|met| if met { "yes" } else { "NO" }.to_owned()).unwrap_or_default(),
        ]);
    }
    Ok(table(&lines))
}

/// Writes it as JSON, making the folder.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(path, serde_json::to_string_pretty(value)? + "\n").with_context(|| format!("write {}", path.display()))
}

/// Columns as wide as their widest cell, the first line underlined.
pub fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let rule: [String; N] = std::array::from_fn(|column| "─".repeat(widths[column]));
    let mut text = String::new();
    for line in lines.iter().take(1).chain([&rule]).chain(lines.iter().skip(1)) {
        let cells: Vec<_> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The nearest-rank percentile of sorted values.
pub fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to len")]
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let millis: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        for (percent, expected) in [(0.0, 1), (1.0, 1), (50.0, 50), (99.0, 99), (99.5, 100), (100.0, 100)] {
            assert_eq!(percentile(&millis, percent), Duration::from_millis(expected), "{percent}");
        }
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
    }

    #[test]
    fn a_budget_judges_its_figure() {
        assert_eq!(Row::at_most("x", 5.0, 5.0, "ms").met, Some(true));
        let missed = Row::at_most("x", 5.1, 5.0, "ms");
        assert_eq!((missed.met, missed.budget.as_deref()), (Some(false), Some("≤ 5 ms")));
    }
}
