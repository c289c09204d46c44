//! `validate FILE`: the checks of `run`, offline; those of the instances that the file names, too.

use std::path::Path;

use serde_json::json;
use tidegate_core::status::API_VERSION;

use super::{Outcome, Output, draw};
use crate::{config, discovery};

pub(super) fn validate(file: &Path, output: Output) -> Outcome {
    let problems = match config::load(Some(file)) {
        Ok(config) => {
            let files = config.file.as_deref().map(|path| discovery::file::problems(Path::new(path)));
            config.xds.exposed(false).into_iter().chain(files.into_iter().flatten()).collect()
        }
        Err(problems) => problems,
    };
    let outcome = if problems.is_empty() { Outcome::Well } else { Outcome::ProblemFound };
    match output {
        Output::Json => {
            let result = json!({ "apiVersion": API_VERSION, "valid": problems.is_empty(), "problems": problems });
            draw::page(&format!("{result}\n"), false);
        }
        Output::Table if problems.is_empty() => draw::page(&format!("{} is valid\n", file.display()), false),
        Output::Table => {
            let said: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
            draw::page(&said, false);
        }
    }
    outcome
}
