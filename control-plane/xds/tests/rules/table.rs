//! docs/xds-rules.md is true: every rule has a cell for each variant, every cell names tests that exist or says why there
//! can be none, and every test that it names is one that `make mutants` has seen fail.

use std::fs;
use std::path::{Path, PathBuf};

const RULES: usize = 26;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The number of a rule and its two cells: delta, state of the world.
fn cells() -> Vec<(String, [String; 2])> {
    let table = read("../../docs/xds-rules.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let rows = rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    rows.filter(|row| row[0].parse::<usize>().is_ok())
        .map(|row| {
            let [number, _, delta, sotw] = <[String; 4]>::try_from(row).unwrap();
            (number, [delta, sotw])
        })
        .collect()
}

/// The tests that a cell names, as paths of their modules.
fn tests(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The file that a test stands in: as much of its path as is a file.
fn file_of(test: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parts: Vec<&str> = test.split("::").collect();
    let candidates = (1..parts.len()).rev().flat_map(|upto| {
        let path = parts[..upto].join("/");
        [format!("src/{path}.rs"), format!("tests/{path}.rs"), format!("tests/{path}/main.rs")]
    });
    candidates.map(|path| root.join(path)).find(|path| path.is_file())
}

#[test]
fn every_rule_has_a_cell_for_each_variant() {
    let cells = cells();
    let numbers: Vec<usize> = cells.iter().map(|(number, _)| number.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=RULES).collect::<Vec<_>>());
    for (number, cells) in &cells {
        for cell in cells {
            let says_why = cell.strip_prefix("n/a: ").is_some_and(|reason| !reason.is_empty());
            assert!(tests(cell).next().is_some() != says_why, "rule {number}: '{cell}' is neither tests nor a reason");
        }
    }
}

#[test]
fn every_test_of_the_table_exists() {
    for (number, cells) in cells() {
        for test in cells.iter().flat_map(|cell| tests(cell)) {
            let file = file_of(test).unwrap_or_else(|| panic!("rule {number}: no file holds {test}"));
            let name = test.rsplit("::").next().unwrap();
            let source = fs::read_to_string(&file).unwrap();
            let stands = ["(", "<"].iter().any(|after| source.contains(&format!("fn {name}{after}")));
            assert!(stands, "rule {number}: {} has no {name}", file.display());
        }
    }
}

#[test]
fn every_cell_is_broken_on_purpose() {
    let mutants = read("../../scripts/mutate-xds");
    for (number, cells) in cells() {
        for (cell, variant) in cells.iter().zip(["delta", "sotw"]) {
            let all: Vec<&str> = tests(cell).collect();
            let seen = all.iter().all(|test| mutants.contains(&format!("    {test}\n")));
            assert!(
                seen,
                "rule {number}, {variant}: scripts/mutate-xds breaks nothing that one of these notices: {all:?}"
            );
        }
    }
}
