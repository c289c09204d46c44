//! Whatever an engine says: nothing panics. Values of Docker's own answers are exchanged for others, of any type.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::answers;

/// An event, an inspect and a list as they are, to begin with.
fn honest() -> Vec<Value> {
    let labels = json!({ "tidegate.enable": "true", "tidegate.drain": "1s", "tidegate.host": "a.localhost" });
    let networks = json!({ "bridge": { "IPAddress": "172.17.0.2", "GlobalIPv6Address": "" } });
    let event = |action: &str| {
        let mut attributes = labels.clone();
        attributes["name"] = json!("a");
        attributes["signal"] = json!("15");
        attributes["exitCode"] = json!("1");
        let actor = json!({ "ID": "a", "Attributes": attributes });
        json!({ "Type": "container", "Action": action, "Actor": actor, "time": 1_795_642_898, "timeNano": 1_795_642_898_000_000_001_i64 })
    };
    let inspect = json!({
        "Id": "a", "Name": "/a", "Created": "2026-11-25T21:41:35.634115306Z",
        "State": { "Status": "running", "StartedAt": "2026-11-25T21:41:38.394697109Z", "ExitCode": 0, "OOMKilled": false,
                   "Health": { "Status": "healthy" } },
        "Config": { "Labels": labels, "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGTERM", "StopTimeout": 10 },
        "HostConfig": { "NetworkMode": "default" },
        "NetworkSettings": { "Networks": networks },
    });
    let summary = json!({
        "Id": "a", "Names": ["/a"], "Created": 1_795_642_895, "State": "running", "Status": "Up 2 minutes (healthy)",
        "Labels": labels, "HostConfig": { "NetworkMode": "default" }, "NetworkSettings": { "Networks": networks },
    });
    let network = json!({ "Type": "network", "Action": "connect", "timeNano": 9,
                          "Actor": { "ID": "n", "Attributes": { "container": "a", "name": "bridge" } } });
    let mut all: Vec<Value> =
        ["create", "start", "kill", "die", "pause", "destroy", "health_status: healthy"].map(event).into();
    all.extend([inspect, json!([summary]), network]);
    all
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(i64::MAX)),
        Just(json!(i64::MIN)),
        any::<String>().prop_map(Value::from),
        "[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3}T[0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3}(\\.[0-9]{0,12})?(Z|[+-][0-9]{1,3}:[0-9]{1,3})?"
            .prop_map(Value::from),
        "(SIG)?(RTMIN|RTMAX|TERM|[0-9]{1,5})([+-][0-9]{1,4})?".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Exchanges the value that is so many steps into `value`, depth first.
fn exchange(value: &mut Value, steps: &mut usize, other: &Value) -> bool {
    if *steps == 0 {
        *value = other.clone();
        return true;
    }
    *steps -= 1;
    match value {
        Value::Array(all) => all.iter_mut().any(|value| exchange(value, steps, other)),
        Value::Object(all) => all.values_mut().any(|value| exchange(value, steps, other)),
        _ => false,
    }
}

proptest! {
    #[test]
    fn nothing_that_an_engine_says_panics(
        lines in prop::collection::vec((0..10_usize, prop::collection::vec((0..24_usize, anything()), 0..3)), 1..12),
        rubbish in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let honest = honest();
        let mut bytes = rubbish;
        for (which, exchanges) in lines {
            let mut line = honest[which].clone();
            for (at, other) in exchanges {
                exchange(&mut line, &mut at.clone(), &other);
            }
            bytes.extend(format!("\n{line}").into_bytes());
        }
        answers(&bytes);
    }
}
