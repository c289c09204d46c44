//! `canary start|set|promote|pause|resume|abort|retry|undo`: what is ordered, and what it has come to.

use std::path::Path;

use tidegate_core::config::{parse_weight, percent};
use tidegate_core::rollout::Command;
use tidegate_core::status::{Canaries, CanaryStatus};

use super::super::ask::{Api, post};
use super::super::{CanaryCommand, OrderArgs, Outcome, Output, draw, token};
use crate::api::canary::{Asked, AskedOrder, Begin};
use crate::http::escaped;

/// Orders what the command says; `None` if it orders nothing.
pub(in super::super) async fn order(api: &Api, output: Output, command: CanaryCommand) -> Outcome {
    let (of, order) = match ordered(command) {
        Ok(ordered) => ordered,
        Err(reason) => return draw::fail(&reason, Outcome::WrongUsage),
    };
    let token = match token::of(of.state_dir) {
        Ok(token) => token,
        Err(outcome) => return outcome,
    };
    let asked = Asked { order, by: who(), reason: of.reason };
    match post::<Canaries>(api, &format!("/v1/canary/{}", escaped(&of.service)), &token, &asked).await {
        Ok(answer) => {
            draw::page(&answer.print(output, |canaries| canaries.canaries.iter().map(said).collect()), false);
            Outcome::Well
        }
        Err(error) => draw::fail(&error.to_string(), error.outcome()),
    }
}

fn ordered(command: CanaryCommand) -> Result<(OrderArgs, AskedOrder), String> {
    let lead = |of, command| Ok((of, AskedOrder::Lead(command)));
    match command {
        CanaryCommand::Start { of, version, stable, weight, plan } => {
            let plan = match plan {
                Some(path) => read(&path)?,
                None => format!("weight: {weight}"),
            };
            Ok((of, AskedOrder::Start { start: Begin { version, stable, plan } }))
        }
        CanaryCommand::Set { of, percent } => {
            let weight = parse_weight(&percent).ok_or_else(|| {
                format!(
                    "error: {percent:?} is not a weight\n  help: write percent from 0 to 100 with at most two decimals"
                )
            })?;
            lead(of, Command::Set(weight))
        }
        CanaryCommand::Promote { of, full } => lead(of, Command::Promote { full }),
        CanaryCommand::Pause { of } => lead(of, Command::Pause),
        CanaryCommand::Resume { of } => lead(of, Command::Resume),
        CanaryCommand::Abort { of } => lead(of, Command::Abort),
        CanaryCommand::Retry { of } => lead(of, Command::Retry),
        CanaryCommand::Undo { of } => lead(of, Command::Undo),
        CanaryCommand::Status { .. } | CanaryCommand::History { .. } | CanaryCommand::Plan { .. } => {
            Err("error: that is no order".to_owned())
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| {
        format!("error: {} cannot be read: {error}\n  help: name a file with the plan", path.display())
    })
}

/// Who orders, as this machine knows them.
fn who() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(std::env::var_os);
    let name = name.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

fn said(status: &CanaryStatus) -> String {
    let CanaryStatus { service, canary, rollout, .. } = status;
    format!(
        "{service}: the canary {} has {}; {}: {}\n",
        canary.name,
        percent(canary.weight),
        rollout.phase,
        rollout.reason
    )
}
