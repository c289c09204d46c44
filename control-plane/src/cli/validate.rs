//! `validate FILE`: the checks of `run`, offline; those of the instances that the file names, too.

use std::path::Path;

use serde_json::json;
use tidegate_core::Problem;
use tidegate_core::config::Config;
use tidegate_core::status::API_VERSION;

use super::{Outcome, Output, draw};
use crate::{config, discovery};

/// What the checks found.
pub(super) struct Checked {
    /// The configuration, where it can be read.
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn validate(file: &Path, output: Output) -> Outcome {
    let Checked { problems, .. } = check(file);
    draw::page(&said(file, &problems, output), false);
    if problems.is_empty() { Outcome::Well } else { Outcome::ProblemFound }
}

pub(super) fn check(file: &Path) -> Checked {
    match config::load(Some(file)) {
        Ok(config) => {
            let files = config.file.as_deref().map(|path| discovery::file::problems(Path::new(path)));
            let problems = config.xds.exposed(false).into_iter().chain(files.into_iter().flatten()).collect();
            Checked { config: Some(config), problems }
        }
        Err(problems) => Checked { config: None, problems },
    }
}

/// What is said of a file with these problems.
pub(super) fn said(file: &Path, problems: &[Problem], output: Output) -> String {
    match output {
        Output::Json => {
            let result = json!({ "apiVersion": API_VERSION, "valid": problems.is_empty(), "problems": problems });
            format!("{result}\n")
        }
        Output::Table if problems.is_empty() => format!("{} is valid\n", file.display()),
        Output::Table => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}
