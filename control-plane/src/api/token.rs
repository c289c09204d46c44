//! The token of whoever may change something. The first start writes it into the state directory, where only its owner reads it;
//! commands read it there. It says nothing of who calls, only that they may read that file.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::TryRngCore;
use tidegate_core::{Code, Problem};

use crate::state_dir;

/// The file in the state directory.
pub const FILE: &str = "api-token";

/// 32 random bytes, in hexadecimal digits.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The one in this state directory, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be read, written, or is none.
    pub fn take(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        match Self::read(&path) {
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound) => {
                let token = Self::make(&path).with_context(|| format!("write {}", path.display()))?;
                tracing::info!(file = %path.display(), "made the token of commands that change something");
                Ok(token)
            }
            outcome => outcome,
        }
    }

    /// [`take`](Self::take), and where that fails one that nobody can read, with the problem that says so: serving goes on.
    #[must_use]
    pub fn take_or_none(state_dir: &Path) -> (Self, Option<Problem>) {
        match Self::take(state_dir) {
            Ok(token) => (token, None),
            Err(error) => {
                let problem = Problem::error(
                    Code::OperatorState,
                    state_dir.join(FILE).display().to_string(),
                    format!("{error:#}"),
                    "commands that change something are refused; serving goes on",
                    "let the state directory be writable, remove that file if it is there, and start again",
                );
                (Self(random().unwrap_or_default()), Some(problem.warning()))
            }
        }
    }

    /// The one in this file.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let text = text.trim();
        let is_token = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_token, "{} holds no token; remove it, and the next start makes another", path.display());
        Ok(Self(text.to_owned()))
    }

    fn make(path: &Path) -> Result<Self> {
        let token = random()?;
        state_dir::replace(path, |out| writeln!(out, "{token}"))?;
        Ok(Self(token))
    }

    /// As a request shows it.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a request shows it; how long the answer takes does not tell how much of it is right.
    #[must_use]
    pub fn is_shown(&self, header: &[u8]) -> bool {
        let expected = self.header();
        let differing = |difference: u8, (a, b): (&u8, &u8)| difference | (a ^ b);
        !self.0.is_empty()
            && header.len() == expected.len()
            && expected.as_bytes().iter().zip(header).fold(0, differing) == 0
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).context("the system has no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
impl Token {
    /// One that everybody knows.
    pub(crate) fn of_tests() -> Self {
        Self("7".repeat(64))
    }
}

/// It is in no log.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_start_makes_it_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = Token::take(directory.path()).unwrap();
        let again = Token::take(directory.path()).unwrap();
        assert!(again.is_shown(first.header().as_bytes()));
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for wrong in
            ["", "Bearer ", &first.header()[..70], &first.header().replace("Bearer", "bearer"), &"x".repeat(71)]
        {
            assert!(!first.is_shown(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{first:?}"), "Token(…)");
        fs::write(directory.path().join(FILE), "short\n").unwrap();
        assert!(Token::take(directory.path()).unwrap_err().to_string().contains("holds no token"));
    }
}
