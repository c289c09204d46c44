//! Whose labels they are: the container's own, its image's, Compose's, and those that are nobody's business.

use super::*;

/// What a container with these labels is, whose image says that.
fn made_of(image: &[(&str, &str)], labels: &[(&str, &str)]) -> Discovered {
    let said = |labels: &[(&str, &str)]| kept(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())));
    // A container shows what its image says as its own.
    let container =
        Container { image_labels: Some(said(image)), labels: said(&[image, labels].concat()), ..container(&[]) };
    let hint = Hint { action: "start".to_owned(), at: Timestamp::default() };
    let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
    interpret(&container, &Placement { distrusts_images: true, ..Placement::default() }, sighting)
}

fn found(discovered: &Discovered) -> Vec<(Code, Severity)> {
    discovered.problems.iter().map(|problem| (problem.code, problem.severity)).collect()
}

const PROJECT: (&str, &str) = ("com.docker.compose.project", "web");
const SERVICE: (&str, &str) = ("com.docker.compose.service", "api");
const ON: (&str, &str) = ("tidegate.enable", "true");

#[test]
fn what_the_image_says_is_ignored_and_told() {
    let host = ("tidegate.host", "evil.localhost");
    let discovered = made_of(&[ON, host], &[]);
    assert!(!discovered.enabled && discovered.memberships.is_empty() && discovered.instances.is_empty());
    assert_eq!(found(&discovered), [(Code::ImageLabels, Severity::Warning)]);
    let problem = &discovered.problems[0];
    assert!(problem.reason.contains("its image has the same `tidegate.enable`, `tidegate.host`"), "{problem}");
    assert!(problem.cure.contains("`providers.docker.trustImageLabels: true`"), "{problem}");
    // Nor does it help to opt in oneself to what the image claims.
    let discovered = made_of(&[host, ("tidegate.port", "9000"), ("tidegate.chek.path", "/")], &[ON]);
    assert!(discovered.enabled);
    assert_eq!(discovered.memberships[0].claim.hosts, [""; 0]);
    assert_eq!(discovered.instances[0].id.address.port(), 80);
    assert_eq!(found(&discovered), [(Code::ImageLabels, Severity::Warning)]);
    // The container's own words count.
    let discovered = made_of(&[host, ON], &[("tidegate.host", "mine.localhost"), ("tidegate.enable", " true")]);
    assert!(!discovered.enabled, "blanks make no other word");
    assert_eq!(found(&discovered), [(Code::ImageLabels, Severity::Warning)], "nobody is told to opt in once more");
    let discovered = made_of(&[host], &[ON, ("tidegate.host", "mine.localhost")]);
    assert_eq!(discovered.memberships[0].claim.hosts, ["mine.localhost"]);
    assert_eq!(discovered.problems, []);
}

#[test]
fn before_the_image_is_known_nothing_is_believed() {
    let placement = Placement { distrusts_images: true, ..Placement::default() };
    let hint = Hint { action: "list".to_owned(), at: Timestamp::default() };
    let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
    let discovered = interpret(&enabled(&[("tidegate.host", "x.localhost")]), &placement, sighting.clone());
    assert_eq!((discovered.memberships, discovered.instances, discovered.problems), (vec![], vec![], vec![]));
    let trusting = interpret(&enabled(&[("tidegate.host", "x.localhost")]), &Placement::default(), sighting);
    assert_eq!((trusting.memberships.len(), trusting.instances.len()), (1, 1));
}

#[test]
fn compose_is_believed_where_it_made_the_container() {
    let number = ("com.docker.compose.container-number", "1");
    let service = |discovered: Discovered| (discovered.memberships[0].service.to_string(), discovered.project);
    let web = (String::from("web-api"), Some("web".to_owned()));
    assert_eq!(service(made_of(&[], &[ON, PROJECT, SERVICE])), web);
    // Compose writes these on images that it builds, too.
    assert_eq!(service(made_of(&[PROJECT, SERVICE], &[ON, number])), web);
    // An image that says so is in no project.
    assert_eq!(service(made_of(&[PROJECT, SERVICE], &[ON])), ("shop-1".to_owned(), None));
}

#[test]
fn what_compose_runs_for_a_moment_is_left_out() {
    let oneoff = |value| ("com.docker.compose.oneoff", value);
    for (label, left_out) in [
        (oneoff("True"), true),
        (oneoff("true"), true),
        (oneoff("False"), false),
        (("com.docker.compose.hook", "pre_start"), true),
        (("com.docker.compose.hook", ""), false),
    ] {
        let discovered = read(&enabled(&[PROJECT, SERVICE, label, ("tidegate.host", "x.localhost")]));
        let problems = if left_out { vec![(Code::LeftOut, Severity::Notice)] } else { vec![] };
        assert_eq!(found(&discovered), problems, "{label:?}");
        assert_eq!(discovered.memberships.is_empty(), left_out);
        assert_eq!(discovered.instances.is_empty(), left_out);
    }
}

#[test]
fn secrets_are_masked_and_told_and_hurt_nobody() {
    const SECRETS: [(&str, &str); 4] = [
        ("com.example.db_PASSWORD", "hunter2"),
        ("traefik.token", "hunter2"),
        ("tidegate.secret", "hunter2"),
        ("tidegate.svc.api.token", "hunter2"),
    ];
    let labels = kept(SECRETS.iter().chain(&[ON]).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    assert_eq!(labels.values().filter(|value| *value == "***").count(), 4, "{labels:?}");
    let container = Container { labels, ..container(&[]) };
    let all = format!("{container:?} {:?}", read(&container));
    assert!(!all.contains("hunter2"), "{all}");
    let codes: Vec<Code> = read(&container).problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::UnknownLabel, Code::UnknownLabel, Code::SecretLabel]);

    let foreign = read(&enabled(&SECRETS[..2]));
    assert_eq!((foreign.instances.len(), found(&foreign)), (1, vec![(Code::SecretLabel, Severity::Warning)]));
    assert!(
        foreign.problems[0].reason.contains("`com.example.db_PASSWORD`, `traefik.token`"),
        "{:?}",
        foreign.problems
    );
    // A service may be named so; its labels are no secrets.
    let named = [("tidegate.svc.token-api.port".to_owned(), "8080".to_owned())];
    assert_eq!(kept(named.clone()), named.into());
    // And what is not enabled is nobody's business.
    assert_eq!(
        read(&Container { labels: BTreeMap::from([("a.token".into(), "***".into())]), ..container }).problems,
        []
    );
}

#[test]
fn what_is_kept_of_many_and_long_labels_is_little_and_still_too_much() {
    let many = (0..10_000).map(|n| (format!("tidegate.x{n}"), "v".repeat(100)));
    let few = kept(many.chain([(ENABLE.to_owned(), "true".to_owned())]));
    assert_eq!(few.len(), 65, "one more than is allowed");
    assert!(few.contains_key(ENABLE));
    assert_eq!(codes(&Container { labels: few, ..container(&[]) }), [Code::LabelLimit]);
    let long = "\u{e9}".repeat(1 << 20);
    let huge = kept([(ENABLE.to_owned(), "true".to_owned()), ("tidegate.host".to_owned(), long.clone())]);
    assert_eq!(huge["tidegate.host"].len(), 1026, "to the end of the character beyond");
    assert_eq!(codes(&Container { labels: huge, ..container(&[]) }), [Code::LabelLimit]);
    let key = kept([(ENABLE.to_owned(), "true".to_owned()), (format!("tidegate.{long}"), String::new())]);
    assert_eq!(codes(&Container { labels: key, ..container(&[]) }), [Code::LabelLimit]);
    let foreign = (0..10_000).map(|n| (format!("com.example.x{n}"), long[..1024].to_owned()));
    assert_eq!(kept(foreign), BTreeMap::new());
    let secrets = (0..10_000).map(|n| (format!("com.example.token{n}"), "x".to_owned()));
    assert_eq!(kept(secrets).len(), 8);
}

#[test]
fn no_label_writes_a_line_of_its_own() {
    for (key, value) in [
        ("tidegate.x\nerror[TG0001]: forged", ""),
        ("tidegate.svc.a\nb.port", "80"),
        ("tidegate.svc.a\u{1b}[2J.host", "x y"),
        ("tidegate.service", "a\nb"),
        ("tidegate.host", "sh\u{43e}p.example"),
        ("tidegate.host", "a\u{0}b"),
        ("tidegate.host", "\u{202e}moc.elpmaxe"),
        ("tidegate.host", "a\u{200b}b.example"),
        ("tidegate.version", "\u{1f600}"),
    ] {
        let discovered = read(&enabled(&[(key, value)]));
        assert!(discovered.instances.is_empty(), "{key:?}={value:?}");
        for problem in &discovered.problems {
            let texts = [&problem.subject, &problem.reason, &problem.effect, &problem.cure];
            let bad = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
            assert!(!texts.iter().any(|text| text.contains(bad)), "{key:?}={value:?}: {problem:?}");
        }
    }
}
