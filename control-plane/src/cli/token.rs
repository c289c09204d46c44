//! The token that commands show which change something.

use std::path::PathBuf;

use super::{Outcome, draw, start};
use crate::api::token::{FILE, Token};

/// The token in this state directory, or the default one.
pub(super) fn of(state_dir: Option<PathBuf>) -> Result<Token, Outcome> {
    let file = start::state_dir(state_dir).join(FILE);
    Token::read(&file).map_err(|error| {
        let reason = format!(
            "error: the token of commands that change something cannot be read: {}: {error:#}\n  help: name the control \
             plane's state directory with `--state-dir`, and be its owner",
            file.display()
        );
        draw::fail(&reason, Outcome::WrongUsage)
    })
}
