use super::*;
use crate::testing::config;

/// A service whose configuration is `text`, with its rollout at this weight, and one instance of v1, v2 and v3.
fn in_force(text: &str, weight: u32) -> InForce {
    let versions = ["v1", "v2", "v3"].map(|name| (VersionName::new(name).unwrap(), 1));
    let service = |declared: &ServiceConfig| {
        let plan = declared.stable.clone().zip(declared.canary.clone());
        ServiceInForce {
            stable: declared.stable.clone(),
            trial: plan.map(|(stable, canary)| Trial {
                plan: Plan { stable, canary, origin: Origin::File },
                weight,
                aborted: false,
            }),
            versions: versions.clone().into(),
        }
    };
    let services = config(text).services.iter().map(|(name, declared)| (name.clone(), service(declared))).collect();
    InForce { api_version: API_VERSION.to_owned(), at: Timestamp::default(), services }
}

fn shop(keys: &str) -> String {
    format!("services: {{ shop: {{ {keys} }} }}")
}

/// Stable v1 and a sticky canary of this version with these keys.
fn trial(version: &str, keys: &str) -> String {
    let affinity = "sessionAffinity: { hashOn: [ { sourceIp: true } ] }";
    shop(&format!("stable: {{ version: v1 }}, canary: {{ version: {version}, {affinity}, {keys} }}"))
}

fn only(now: &InForce, file: &str) -> Foreseen {
    let mut services = forecast(now, &config(file)).services;
    assert_eq!(services.len(), 1, "{services:?}");
    services.remove(0)
}

#[test]
fn each_change_says_what_becomes_of_whom() {
    let steps = "steps: [ { setWeight: 10 }, { pause: {} }, { setWeight: 50 } ]";
    let (v1, v2) = (shop("stable: { version: v1 }"), trial("v2", "weight: 10"));
    let table = [
        (v1.clone(), v1.clone(), Change::None, "nothing changes", [0, 0, 0]),
        (v1.clone(), v2.clone(), Change::Begins, "v2 begins at 10 % beside v1", [0, 1_000, 1_000]),
        (v2.clone(), v2.clone(), Change::None, "v2 goes on at 25 %", [2_500, 2_500, 0]),
        // The short form is these steps.
        (
            v2.clone(),
            trial("v2", "steps: [ { setWeight: 10 }, { pause: {} } ]"),
            Change::None,
            "v2 goes on at 25 %",
            [2_500, 2_500, 0],
        ),
        (
            v2.clone(),
            trial("v3", "weight: 5"),
            Change::Supersedes,
            "v3 takes the place of v2, which gets nothing first: its clients (25 % of all) return to v1; then v3 begins at 5 %",
            [2_500, 500, 2_500],
        ),
        (
            v2.clone(),
            trial("v2", steps),
            Change::Restarts,
            "v2 begins again at its first step, 25 % → 10 %: clients (15 % of all) return to v1",
            [2_500, 1_000, 1_500],
        ),
        (
            v2.clone(),
            trial("v2", "weight: 30"),
            Change::Restarts,
            "v2 begins again at its first step, 25 % → 30 %: clients (5 % of all) join it, and nobody leaves it",
            [2_500, 3_000, 500],
        ),
        (
            v2.clone(),
            trial("v2", "weight: 25"),
            Change::Restarts,
            "v2 begins again at its first step, 25 % → 25 %: nobody moves",
            [2_500, 2_500, 0],
        ),
        (v2.clone(), v1.clone(), Change::Ends, "v2 ends: its clients (25 % of all) return to v1", [2_500, 0, 2_500]),
        (
            v2.clone(),
            shop("stable: { version: v2 }"),
            Change::Promotes,
            "v2 becomes stable: it gets everything, 75 % more",
            [2_500, 10_000, 7_500],
        ),
        (
            v2,
            shop("stable: { version: v2 }, canary: { version: v3, weight: 1 }"),
            Change::Promotes,
            "v2 becomes stable, and v3 begins at 1 %",
            [2_500, 100, 7_500],
        ),
        (
            v1.clone(),
            shop("stable: { version: v2 }"),
            Change::Switches,
            "all requests go to v2 instead of v1 at once",
            [0, 0, 10_000],
        ),
        (
            shop("retry: safe"),
            v1.clone(),
            Change::Switches,
            "the pool ends: all requests go to v1, and none to v2, v3",
            [0, 0, 0],
        ),
        (v1, "{}".to_owned(), Change::Switches, "a pool: each version gets its share, not v1 alone", [0, 0, 0]),
    ];
    for (before, after, change, says, [from, to, moved]) in table {
        let found = only(&in_force(&before, 2_500), &after);
        assert_eq!((found.change, &*found.says), (change, says), "{before} -> {after}");
        assert_eq!([found.from, found.to, found.moved], [from, to, moved], "{before} -> {after}");
    }
}

#[test]
fn what_an_operator_or_a_label_began_is_not_ended_by_a_file_that_says_nothing_of_it() {
    for (origin, by) in [(Origin::Operator, "an operator"), (Origin::Label, "a label")] {
        let mut now = in_force(&trial("v2", "weight: 10"), 1_000);
        for service in now.services.values_mut() {
            service.stable = None;
            if let Some(trial) = &mut service.trial {
                trial.plan.origin = origin;
            }
        }
        let found = only(&now, "{}");
        assert_eq!((found.change, found.moved), (Change::None, 0));
        assert_eq!(found.says, format!("v2, declared by {by}, goes on at 10 %"));
        assert_eq!(only(&now, &trial("v3", "weight: 5")).change, Change::Supersedes, "the file's word holds");
        assert_eq!(only(&now, &shop("stable: { version: v2 }")).change, Change::Promotes);
    }
}

#[test]
fn what_is_worth_knowing_before_is_a_warning() {
    let now = in_force(&trial("v2", "weight: 10"), 1_000);
    let warnings = |file: &str| only(&now, file).warnings;
    assert_eq!(warnings(&trial("v2", "weight: 20")), [""; 0]);
    assert_eq!(warnings(&trial("v4", "weight: 20")), ["v4 has no instance: it waits until it has"]);
    assert_eq!(
        warnings(&shop("stable: { version: v0 }, canary: { version: v3, weight: 1 }")),
        [
            "v0, the stable version, has no instance",
            "no `sessionAffinity`: each request is drawn anew, and a client gets both versions"
        ]
    );
    assert_eq!(
        warnings(&trial("v2", "steps: [ { setWeight: 1 }, { pause: { duration: 1m } } ]")),
        ["no `analysis`, and no pause without end: time alone takes it to everybody"]
    );
    let salted = shop(
        "stable: { version: v1 }, canary: { version: v2, weight: 10, \
         sessionAffinity: { hashOn: [ { sourceIp: true } ], salt: service } }",
    );
    let found = only(&now, &salted);
    assert_eq!(found.warnings, ["another `salt` or `hashOn` deals all clients anew"]);
    assert_eq!((found.change, found.moved), (Change::Restarts, 900), "a tenth of a tenth has it again by chance");
    // Nothing changes, so nothing is warned of.
    assert_eq!(warnings(&trial("v2", "weight: 10")), [""; 0]);
}

#[test]
fn only_what_is_declared_or_under_trial_is_listed() {
    let mut now = in_force(&trial("v2", "weight: 10"), 1_000);
    now.services.insert(ServiceName::new("other").unwrap(), ServiceInForce::default());
    let file = "services: { cart: { stable: { version: v1 } }, shop: { stable: { version: v1 } } }";
    let listed: Vec<String> =
        forecast(&now, &config(file)).services.into_iter().map(|found| found.service.to_string()).collect();
    assert_eq!(listed, ["cart", "shop"]);
}
