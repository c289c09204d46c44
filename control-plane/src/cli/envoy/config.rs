//! `envoy config [NAME]`: what the local Envoy itself says it has.

use tidegate_core::problem::printable;
use tidegate_core::status::{EnvoyConfig, HeldResource, HeldState};

use super::query;
use crate::cli::ask::{Api, Shown, get};
use crate::cli::draw::{Drawn, Mood, plain};
use crate::cli::{Outcome, Output};

pub(in crate::cli) async fn config(api: &Api, output: Output, kind: Option<&str>, name: Option<&str>) -> Shown {
    let path = query("/v1/envoy/config", &[("type", kind), ("name", name)]);
    let answer = get::<EnvoyConfig>(api, &path).await?;
    Ok((answer.print(output, screen), Outcome::Well))
}

fn screen(seen: &EnvoyConfig) -> String {
    let EnvoyConfig { node, version, admin, resources, .. } = seen;
    let mut text = format!("edge {node} ({version}) at {admin}\n\n");
    let mut table = Drawn::new(&["TYPE", "NAME", "VERSION", "LAST UPDATED", "STATE"]);
    for resource in resources {
        table.row([
            plain(&resource.kind),
            plain(&resource.name),
            plain(resource.version.as_deref().unwrap_or("-")),
            plain(resource.updated.as_deref().unwrap_or("-")),
            state(resource.state),
        ]);
    }
    text.push_str(&table.text());
    for HeldResource { kind, name, error, config, .. } in resources {
        if let Some(error) = error {
            text.push_str(&format!("\n{kind} {name} was refused: {}\n", error.trim_end()));
        }
        if let Some(config) = config {
            text.push_str(&format!("\n{}\n", printable(&format!("{config:#}"))));
        }
    }
    text
}

fn state(state: HeldState) -> (String, Mood) {
    let (word, mood) = match state {
        HeldState::Active => ("active", Mood::Good),
        HeldState::Warming => ("warming", Mood::Unsure),
        HeldState::Draining => ("draining", Mood::Plain),
        HeldState::Error => ("error", Mood::Bad),
    };
    (word.to_owned(), mood)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_core::Timestamp;

    use super::*;

    #[test]
    fn states_errors_and_the_resource_that_was_named() {
        let held = |state, error: Option<&str>, config| HeldResource {
            kind: "LDS".to_owned(),
            name: "web".to_owned(),
            version: error.is_none().then(|| "845f9c14141978de".to_owned()),
            updated: Some("2026-11-25T18:33:47.185Z".to_owned()),
            state,
            error: error.map(ToOwned::to_owned),
            config,
        };
        let seen = EnvoyConfig {
            api_version: "tidegate/v1".to_owned(),
            at: Timestamp::from_millis(1),
            admin: "127.0.0.1:9901".to_owned(),
            node: "edge".to_owned(),
            version: "envoy 1.40.0".to_owned(),
            resources: vec![
                held(HeldState::Active, None, Some(json!({ "name": "web\u{202e}" }))),
                held(HeldState::Error, Some("cannot bind\n"), None),
            ],
        };
        assert_eq!(
            screen(&seen),
            r#"edge edge (envoy 1.40.0) at 127.0.0.1:9901

TYPE  NAME  VERSION           LAST UPDATED              STATE
LDS   web   845f9c14141978de  2026-11-25T18:33:47.185Z  active
LDS   web   -                 2026-11-25T18:33:47.185Z  error

{
  "name": "web\u{202e}"
}

LDS web was refused: cannot bind
"#
        );
    }
}
