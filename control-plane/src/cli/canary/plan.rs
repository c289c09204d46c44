//! `canary plan FILE`: what a changed configuration would do to the rollouts, before it does it.

use std::path::Path;

use tidegate_core::forecast::{Change, Forecast, InForce, forecast};

use super::super::ask::{Api, Shown, get};
use super::super::draw::{Drawn, Mood, plain};
use super::super::validate::{self, Checked};
use super::super::{Outcome, Output};

pub(in super::super) async fn plan(api: &Api, output: Output, file: &Path) -> Shown {
    let config = match validate::check(file) {
        Checked { config: Some(config), problems } if problems.is_empty() => config,
        Checked { problems, .. } => return Ok((validate::said(file, &problems, output), Outcome::ProblemFound)),
    };
    let now = get::<InForce>(api, "/v1/config/services").await?.value;
    let forecast = forecast(&now, &config);
    let text = match output {
        Output::Json => format!("{}\n", serde_json::to_string(&forecast).unwrap_or_default()),
        Output::Table => drawn(&forecast),
    };
    Ok((text, Outcome::Well))
}

fn drawn(forecast: &Forecast) -> String {
    if forecast.services.is_empty() {
        return "no service is declared, and none has a canary\n".to_owned();
    }
    let mut table = Drawn::new(&["SERVICE", "WHAT"]);
    for found in &forecast.services {
        let mood = if found.change == Change::None { Mood::Plain } else { Mood::Unsure };
        table.row([plain(found.service.as_str()), (found.says.clone(), mood)]);
        for warning in &found.warnings {
            table.row([plain(""), (format!("  warning: {warning}"), Mood::Bad)]);
        }
    }
    table.text()
}
