use std::time::Duration;

use proptest::prelude::*;

use super::super::super::canary::{
    Analysis, Breaker, Failure, Figure, Metric, MetricKind, OnFailure, OnInconclusive, Webhook, WebhookKind,
};
use super::*;
use crate::config::parse;

/// The block that docs/configuration.md shows in whole.
const WHOLE_BLOCK: &str = r#"
services:
  checkout:
    stable: { version: "1.8.2" }
    canary:
      version: "1.9.0"
      minReady: "50%"
      whenNotReady: error
      match:
        header: { name: X-Canary }
        cookie: { name: canary }
      sessionAffinity:
        hashOn: [ { header: X-User-Id }, { cookie: tg_id }, { sourceIp: true } ]
        cookieName: tg_id
        maxAge: 3600
        salt: service
      steps:
        - mirror: 5
        - pause: { duration: 5m }
        - setWeight: 0.5
        - pause: { duration: 2m }
        - setWeight: 10
        - setWeight: 10
        - pause: {}
        - pause:
      analysis:
        interval: 10s
        threshold: 4
        minSamples: 500
        maxStepDuration: 1h
        onInconclusive: rollback
        onFailure: freeze
        dryRun: true
        metrics:
          - name: request-success-rate
            thresholdRange: { min: 99 }
            maxDegradation: 1.5
          - { name: request-duration, percentile: 90, thresholdRange: { max: 500 }, maxDegradation: "1.25x" }
          - name: carts
            prometheus: { address: "http://prometheus:9090", query: 'sum(rate(carts[1m]))' }
            thresholdRange: { min: -1, max: 2.5 }
      breaker:
        failOn: [ unavailable, 5xx, reset, 5xx ]
        baselineErrorRate: 0.5
        trippedErrorRate: 20
        sensitivity: 9.3
        minDistinctKeys: 5
        latch: until-reset
      webhooks:
        - { type: confirm-promotion, url: "http://gate/approve", timeout: 3s }
        - { type: notify, url: "http://10.0.0.1:8080/told?who=tidegate" }
"#;

fn canary(text: &str) -> Arc<Canary> {
    let config = parse("f", text).expect("it is valid");
    config.services.into_values().next().and_then(|service| service.canary).expect("it has a canary")
}

/// A canary of `b` beside a stable `a`, with these keys.
fn block(keys: &str) -> String {
    format!("services: {{ s: {{ stable: {{ version: a }}, canary: {{ version: b, {keys} }} }} }}")
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse("f", text).expect_err(text);
    problems.iter().map(|p| format!("{} | {}", p.reason.replace("services.s.canary", "…"), p.cure)).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_whole_block_is_read() {
    let metric = |name: &str, kind, bounds: [Option<f64>; 3]| {
        let [min, max, max_degradation] = bounds.map(|bound| bound.and_then(Figure::new));
        Metric { name: name.to_owned(), kind, min, max, max_degradation }
    };
    let prometheus = MetricKind::Prometheus {
        address: "http://prometheus:9090".to_owned(),
        query: "sum(rate(carts[1m]))".to_owned(),
    };
    let expected = Canary {
        version: VersionName::new("1.9.0").unwrap(),
        min_ready: MinReady::Percent(50),
        when_not_ready: WhenNotReady::Error,
        overrides: Overrides {
            header: Some(HeaderOverride { name: "x-canary".to_owned(), wanted: Wanted::AlwaysNever }),
            cookie: Some("canary".to_owned()),
        },
        hash_on: vec![HashOn::Header("x-user-id".to_owned()), HashOn::Cookie("tg_id".to_owned()), HashOn::SourceIp],
        cookie: Some(AffinityCookie { name: "tg_id".to_owned(), max_age_s: 3_600 }),
        salt: Salt::Service,
        steps: vec![
            Step::Mirror(500),
            Step::Pause(Some(seconds(300))),
            Step::SetWeight(50),
            Step::Pause(Some(seconds(120))),
            Step::SetWeight(1_000),
            Step::SetWeight(1_000),
            Step::Pause(None),
            Step::Pause(None),
        ],
        analysis: Some(Analysis {
            interval: seconds(10),
            threshold: 4,
            min_samples: 500,
            max_step_duration: seconds(3_600),
            on_inconclusive: OnInconclusive::Rollback,
            on_failure: OnFailure::Freeze,
            dry_run: true,
            metrics: vec![
                metric("request-success-rate", MetricKind::SuccessRate, [Some(99.0), None, Some(1.5)]),
                metric("request-duration", MetricKind::Duration { percentile: 90 }, [None, Some(500.0), Some(1.25)]),
                metric("carts", prometheus, [Some(-1.0), Some(2.5), None]),
            ],
        }),
        breaker: Some(Breaker {
            fail_on: vec![Failure::ServerError, Failure::Reset, Failure::Unavailable],
            baseline_error_rate: 50,
            tripped_error_rate: 2_000,
            sensitivity: Figure::new(9.3).unwrap(),
            min_distinct_keys: 5,
        }),
        webhooks: vec![
            Webhook { kind: WebhookKind::ConfirmPromotion, url: "http://gate/approve".to_owned(), timeout: seconds(3) },
            Webhook {
                kind: WebhookKind::Notify,
                url: "http://10.0.0.1:8080/told?who=tidegate".to_owned(),
                timeout: seconds(5),
            },
        ],
    };
    assert_eq!(*canary(WHOLE_BLOCK), expected);
}

#[test]
fn what_is_left_out_is_the_default() {
    assert_eq!(*canary(&block("weight: 10")), Canary::at(VersionName::new("b").unwrap(), 1_000));
    for empty in ["{}", "null"] {
        let canary = canary(&block(&format!("weight: 1, analysis: {empty}, breaker: {empty}")));
        assert_eq!((&canary.analysis, &canary.breaker), (&Some(Analysis::default()), &Some(Breaker::default())));
    }
    let given = canary(&block("weight: 1, sessionAffinity: { hashOn: [ { cookie: id } ], cookieName: id }"));
    assert_eq!(given.cookie, Some(AffinityCookie { name: "id".to_owned(), max_age_s: 86_400 }));
    let read = canary(&block("weight: 1, sessionAffinity: { hashOn: [ { cookie: id } ] }"));
    assert_eq!((&*read.hash_on, &read.cookie), (&[HashOn::Cookie("id".to_owned())][..], &None), "it is only read");
    let duration = "weight: 1, analysis: { metrics: [ { name: request-duration, maxDegradation: 2x } ] }";
    let metrics = canary(&block(duration)).analysis.clone().unwrap().metrics;
    assert_eq!(metrics[0].kind, MetricKind::Duration { percentile: 99 });
    let all = canary(&block("steps: [ { setWeight: 100 } ]"));
    assert_eq!(all.steps, [Step::SetWeight(10_000)], "blue-green is one step");
}

#[test]
fn how_many_have_to_be_ready_is_a_number_or_a_share() {
    for (text, expected) in [
        ("3", MinReady::Instances(3)),
        ("\"50%\"", MinReady::Percent(50)),
        ("\"100 %\"", MinReady::Percent(100)),
        ("1%", MinReady::Percent(1)),
    ] {
        assert_eq!(canary(&block(&format!("weight: 1, minReady: {text}"))).min_ready, expected, "{text}");
    }
    for text in ["0", "\"0%\"", "\"101%\"", "-1", "1.5", "half", "\"%\"", "99999999999"] {
        let found = problems(&block(&format!("weight: 1, minReady: {text}")));
        let said = format!(
            "`….minReady`: \"{}\" is not a number of instances, nor a share of them | write a whole number from 1, or \
             percent from \"1%\" to \"100%\"",
            text.trim_matches('"')
        );
        assert_eq!(found, [said]);
    }
}

#[test]
fn who_says_itself_what_it_wants() {
    let wanted = |text: &str| {
        let text = block(&format!("weight: 1, match: {{ header: {{ name: X-Beta, {text} }} }}"));
        canary(&text).overrides.header.clone().unwrap().wanted
    };
    assert_eq!(wanted("value: s3cr3t"), Wanted::Value("s3cr3t".to_owned()));
    assert_eq!(wanted("pattern: \"beta-[0-9]{1,3}\""), Wanted::Pattern("beta-[0-9]{1,3}".to_owned()));
    for (text, said) in [
        ("{}", "`….match` names neither a header nor a cookie"),
        (
            "{ header: { name: X-TG-Svc } }",
            "`x-tg-svc` is stripped from every request, so no client could say anything by it",
        ),
        ("{ header: { name: X-Tidegate-Reason } }", "`x-tidegate-reason` is stripped"),
        ("{ header: { name: \"X Beta\" } }", "\"X Beta\" is not a header name"),
        ("{ header: { name: \":path\" } }", "\":path\" is not a header name"),
        ("{ header: { value: a } }", "`….match.header` has no `name` | write `header: { name: X-Canary }`"),
        ("{ header: X-Beta }", "`….match.header` is a single value, not a mapping"),
        ("{ header: { nam: X-Beta } }", "did you mean `name`?"),
        ("{ header: { name: X-Beta, value: a, pattern: b } }", "has both `value` and `pattern`"),
        ("{ header: { name: X-Beta, value: \"\" } }", "\"\" is not a value that a header can have"),
        ("{ header: { name: X-Beta, value: \"ä\" } }", "\"ä\" is not a value that a header can have"),
        ("{ header: { name: X-Beta, value: [ a ] } }", "`….match.header.value` is a list, not a single value"),
        ("{ cookie: { name: \"a=b\" } }", "\"a=b\" is not a cookie name | write a name such as canary"),
        ("{ cookie: { name: \"a;b\" } }", "\"a;b\" is not a cookie name"),
        ("{ cookie: {} }", "`….match.cookie` has no `name`"),
    ] {
        let found = problems(&block(&format!("weight: 1, match: {text}")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
}

#[test]
fn a_pattern_is_one_that_envoy_takes() {
    let check = |pattern: &str| pattern::check(pattern);
    for pattern in ["always", "beta-.*", "(?i)beta|canary", "[0-9a-f]{8}", "^v\\d+\\.\\d+$", "[^,]+", "\\x41", "a{2,}"]
    {
        assert_eq!(check(pattern), Ok(()), "{pattern}");
    }
    for (pattern, said) in [
        ("", "it is empty"),
        ("beta-(", "unclosed group"),
        ("[z-a]", "invalid character class range"),
        ("(?=beta)", "look-around"),
        ("(a)\\1", "backreferences are not supported"),
        ("a**", "has no `*`"),
        ("a{2}{3}", "has no `{3}`"),
        ("a{,3}", "repetition quantifier"),
        ("a{1001}", "has no `{1001}`"),
        ("(?x)a", "has no `x`"),
        ("[a-z&&[^b]]", "has no `"),
        ("\\u0041", "has no `\\u0041`"),
        ("\\b{start}a", "has no `\\b{start}`"),
        ("\\p{L}", "has no `\\p{L}`"),
        ("é", "'é' is not ASCII"),
        ("[^\\x{e9}]", "'é' is not ASCII"),
        ("(?P<a.b>c)", "has no `a.b`"),
        ("[0-9]{1,99}", "it is too large"),
        ("(((a{9}){9}){9}){9}", "it is too large"),
    ] {
        let found = check(pattern).expect_err(pattern);
        assert!(found.contains(said), "{pattern}: {found}");
    }
    assert!(check(&"a".repeat(257)).unwrap_err().contains("more than 256 bytes"));
    let text = block("weight: 1, match: { header: { name: X-Beta, pattern: \"beta-(\" } }");
    assert_eq!(
        problems(&text),
        [
            "`….match.header.pattern`: \"beta-(\" cannot be used: unclosed group | write a short RE2 expression of the whole \
          value, such as \"beta-.*\""
        ]
    );
}

#[test]
fn what_is_wrong_with_the_affinity_is_said() {
    for (text, said) in [
        ("{}", "`….sessionAffinity` has no `hashOn`"),
        ("{ hashOn: [] }", "`….sessionAffinity.hashOn` is empty"),
        ("{ hashOn: [ { cookie: \"a b\" } ] }", "\"a b\" is not a cookie name"),
        ("{ hashOn: [ { cookie: a, header: b } ] }", "is one of `header: NAME`, `cookie: NAME` and `sourceIp: true`"),
        ("{ hashOn: [ { coookie: a } ] }", "did you mean `cookie`?"),
        ("{ hashOn: [ { sourceIp: yes } ] }", "sourceIp is \"yes\""),
        ("{ hashOn: [ { header: X-TG-Key } ] }", "so no client could have a key"),
        (
            "{ hashOn: [ { sourceIp: true } ], cookieName: tg_id }",
            "no cookie `tg_id` is in `hashOn` | add `cookie: tg_id` to `hashOn`",
        ),
        (
            "{ hashOn: [ { cookie: tg_id } ], cookieName: tgid }",
            "no cookie `tgid` is in `hashOn` | did you mean `tg_id`?",
        ),
        ("{ hashOn: [ { cookie: a } ], cookieName: \"a;b\" }", "\"a;b\" is not a cookie name"),
        ("{ hashOn: [ { cookie: __Host-a } ], cookieName: __Host-a }", "browsers take `__Host-a` over HTTPS alone"),
        (
            "{ hashOn: [ { cookie: a } ], cookieName: a, maxAge: 24h }",
            "\"24h\" is a duration, and the age of a cookie is in seconds | write 86400",
        ),
        ("{ hashOn: [ { cookie: a } ], cookieName: a, maxAge: 0 }", "\"0\" is not a whole number from 1 to 34560000"),
        ("{ hashOn: [ { cookie: a } ], maxAge: 60 }", "is that of a cookie, and no `cookieName` says of which"),
        ("{ hashOn: [ { cookie: a } ], salt: rolout }", "there is no salt \"rolout\" | did you mean `rollout`?"),
    ] {
        let found = problems(&block(&format!("weight: 1, sessionAffinity: {text}")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
    let both =
        "weight: 1, match: { cookie: { name: a } }, sessionAffinity: { hashOn: [ { cookie: a } ], cookieName: a }";
    assert!(problems(&block(both))[0].contains("`….match.cookie` is `a`, the cookie that `cookieName` gives clients"));
}

#[test]
fn steps_grow_and_do_nothing_else() {
    for (text, said) in [
        ("minReady: 1", "`…` has neither `weight` nor `steps` | add `weight: 10` for 10 % of the traffic"),
        ("weight: 1, steps: [ { setWeight: 1 } ]", "`…` has both `weight` and `steps` | leave `weight` out"),
        ("steps: []", "`….steps` is empty"),
        ("steps:", "`….steps` is empty"),
        ("steps: { setWeight: 1 }", "`….steps` is a mapping, not a list"),
        (
            "steps: [ { setWeight: 10 }, { pause: {} }, { setWeight: 9.99 } ]",
            "`….steps`: the weight goes down from 10 % to 9.99 % | let each weight be the last one or more",
        ),
        (
            "steps: [ { setWeight: 1 }, { mirror: 5 } ]",
            "`….steps`: a mirror comes after a weight, when clients get the canary's answers | move it before the first \
             `setWeight`",
        ),
        ("steps: [ { setWeight: 101 } ]", "`….steps.setWeight`: \"101\" is not a weight | write percent from 0 to 100"),
        ("steps: [ { setWeight: 0.001 } ]", "\"0.001\" is not a weight"),
        ("steps: [ { mirror: 0 } ]", "`….steps.mirror`: \"0\" is not a share | write percent from 0.01 to 100"),
        ("steps: [ { pause: 2m } ]", "`….steps.pause` is a single value, not a mapping"),
        ("steps: [ { pause: { duration: 2 } } ]", "\"2\" has no unit: write `2s` or `2ms`"),
        (
            "steps: [ { pause: { duration: 0s } } ]",
            "`….steps.pause.duration`: \"0s\" is out of range | write a duration from 1s to 720h, such as 10m",
        ),
        ("steps: [ { pause: { duration: 721h } } ]", "is out of range"),
        ("steps: [ { pause: { durations: 1m } } ]", "did you mean `duration`?"),
        ("steps: [ { setweight: 1 } ]", "did you mean `setWeight`?"),
        ("steps: [ { setWeight: 1, pause: {} } ]", "is one of `setWeight: PERCENT`, `pause: {}` and `mirror: PERCENT`"),
        ("steps: [ setWeight ]", "`….steps` is a single value, not a mapping"),
    ] {
        let found = problems(&block(text));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
    let many = vec!["{ setWeight: 1 }"; 65].join(", ");
    assert!(problems(&block(&format!("steps: [ {many} ]")))[0].contains("`….steps` has 65 items; 64 are allowed"));
}

#[test]
fn one_canary_at_a_time_and_never_the_stable_version() {
    let two =
        "services: { s: { stable: { version: a }, canary: [ { version: b, weight: 1 }, { version: c, weight: 1 } ] } }";
    assert_eq!(
        problems(two),
        [
            "`…` is a list, and a service has one canary at a time | write one as a mapping, and the next when that one has \
          ended"
        ]
    );
    let same = "services: { s: { stable: { version: a }, canary: { version: a, steps: [ { setWeight: 1 } ] } } }";
    assert!(problems(same)[0].contains("the canary is the stable version \"a\" itself"));
    assert!(problems(&block("weight: 1, whenNotReady: eror"))[0].contains("did you mean `error`?"));
    assert!(problems(&block("weight: 1, webhook: []"))[0].contains("did you mean `webhooks`?"));
}

#[test]
fn what_is_wrong_with_the_analysis_is_said() {
    for (text, said) in [
        (
            "{ interval: 0s }",
            "`….analysis.interval`: \"0s\" is out of range | write a duration from 1s to 1h, such as 5s",
        ),
        ("{ interval: 5 }", "\"5\" has no unit"),
        ("{ threshold: 0 }", "`….analysis.threshold`: \"0\" is not a whole number from 1 to 1000"),
        ("{ minSamples: 0 }", "\"0\" is not a whole number from 1 to 1000000000"),
        ("{ minSamples: many }", "\"many\" is not a whole number"),
        ("{ interval: 1m, maxStepDuration: 59s }", "`….analysis.maxStepDuration` is shorter than `interval`"),
        (
            "{ onInconclusive: promote }",
            "`….analysis.onInconclusive`: there is no way \"promote\" | use pause or rollback",
        ),
        ("{ onFailure: freez }", "did you mean `freeze`?"),
        ("{ dryRun: yes }", "`….analysis.dryRun`: \"yes\" is neither true nor false"),
        ("{ metrics: [] }", "`….analysis.metrics` is empty"),
        ("{ metric: [] }", "did you mean `metrics`?"),
        ("[]", "`….analysis` is a list, not a mapping"),
    ] {
        let found = problems(&block(&format!("weight: 1, analysis: {text}")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_metric_is_said() {
    let asked = "prometheus: { address: \"http://p:9090\", query: q }";
    for (text, said) in [
        ("maxDegradation: 1".to_owned(), "an item of `….analysis.metrics` has no `name`"),
        ("name: request-succes-rate, maxDegradation: 1".to_owned(), "did you mean `request-success-rate`?"),
        ("name: carts, thresholdRange: { max: 1 }".to_owned(), "there is no metric \"carts\" | add `prometheus: {"),
        (
            "name: request-success-rate".to_owned(),
            "nothing says what `request-success-rate` may be | add `maxDegradation: 1`",
        ),
        ("name: request-duration".to_owned(), "nothing says what `request-duration` may be"),
        (format!("name: carts, {asked}"), "nothing says what `carts` may be | add `thresholdRange"),
        (format!("name: request-duration, {asked}, thresholdRange: {{ max: 1 }}"), "is measured by tidegate itself"),
        (
            format!("name: carts, {asked}, percentile: 9, thresholdRange: {{ max: 1 }}"),
            "`carts` has none, only `request-duration`",
        ),
        (
            "name: request-duration, percentile: 0, maxDegradation: 2x".to_owned(),
            "\"0\" is not a whole number from 1 to 99",
        ),
        (
            "name: request-duration, percentile: 100, maxDegradation: 2x".to_owned(),
            "\"100\" is not a whole number from 1 to 99",
        ),
        ("name: request-duration, percentile: 99.9, maxDegradation: 2x".to_owned(), "\"99.9\" is not a whole number"),
        (
            "name: request-duration, maxDegradation: 0.9x".to_owned(),
            "\"0.9x\" is not a factor above 1 | write such as \"1.25x\"",
        ),
        ("name: request-duration, maxDegradation: 1x".to_owned(), "\"1x\" is not a factor above 1"),
        ("name: request-duration, maxDegradation: 1.25".to_owned(), "\"1.25\" is not a factor above 1"),
        ("name: request-duration, maxDegradation: infx".to_owned(), "\"infx\" is not a factor above 1"),
        (
            "name: request-success-rate, maxDegradation: 1.25x".to_owned(),
            "is not a number of percentage points above 0",
        ),
        ("name: request-success-rate, maxDegradation: 0".to_owned(), "is not a number of percentage points above 0"),
        ("name: request-success-rate, maxDegradation: 101".to_owned(), "is not a number of percentage points above 0"),
        (format!("name: carts, {asked}, maxDegradation: 1"), "has no meaning for a query"),
        ("name: request-success-rate, thresholdRange: {}".to_owned(), "has neither `min` nor `max`"),
        (
            "name: request-success-rate, thresholdRange: { min: 99, max: 9 }".to_owned(),
            "its `min` 99 is above its `max` 9",
        ),
        (
            "name: request-success-rate, thresholdRange: { min: 101 }".to_owned(),
            "has a bound that `request-success-rate` never comes to | write percent, from 0 to 100",
        ),
        ("name: request-duration, thresholdRange: { max: -1 }".to_owned(), "never comes to | write milliseconds"),
        ("name: request-duration, thresholdRange: { max: 500ms }".to_owned(), "\"500ms\" is not a number"),
        ("name: request-duration, thresholdRange: { max: nan }".to_owned(), "\"nan\" is not a number"),
        (
            "name: carts, prometheus: { address: \"http://p:9090\" }, thresholdRange: { max: 1 }".to_owned(),
            "needs `address` and `query`",
        ),
        (
            "name: carts, prometheus: { address: \"p:9090\", query: q }, thresholdRange: { max: 1 }".to_owned(),
            "`….analysis.metrics.prometheus.address`: ",
        ),
        (
            "name: carts, prometheus: { address: \"http://p:9090/?a=b\", query: q }, thresholdRange: { max: 1 }"
                .to_owned(),
            "has a query of its own",
        ),
        (
            "name: carts, prometheus: { address: \"http://p:9090\", query: \" \" }, thresholdRange: { max: 1 }"
                .to_owned(),
            "`….analysis.metrics.prometheus.query` is empty",
        ),
        ("name: \"a b\", thresholdRange: { max: 1 }".to_owned(), "\"a b\" is not a metric name"),
    ] {
        let found = problems(&block(&format!("weight: 1, analysis: {{ metrics: [ {{ {text} }} ] }}")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
    let twice = "{ name: request-success-rate, maxDegradation: 1 }, { name: request-success-rate, maxDegradation: 2 }";
    let found = problems(&block(&format!("weight: 1, analysis: {{ metrics: [ {twice} ] }}")));
    assert!(found[0].contains("another metric before this one is named `request-success-rate`"), "{found:?}");
}

#[test]
fn what_is_wrong_with_the_breaker_is_said() {
    for (text, said) in [
        ("{ failOn: [ 5xxx ] }", "`….breaker.failOn`: there is no failure \"5xxx\" | did you mean `5xx`?"),
        ("{ failOn: [] }", "`….breaker.failOn` is empty"),
        ("{ failOn: 5xx }", "`….breaker.failOn` is a single value, not a list"),
        ("{ baselineErrorRate: 0 }", "\"0\" is not a share of failures | write percent from 0.01 to 99.99"),
        ("{ trippedErrorRate: 100 }", "\"100\" is not a share of failures"),
        (
            "{ baselineErrorRate: 5, trippedErrorRate: 5 }",
            "`trippedErrorRate` (5 %) is not above `baselineErrorRate` (5 %), so that it would stop what is normal",
        ),
        ("{ baselineErrorRate: 50 }", "`trippedErrorRate` (10 %) is not above `baselineErrorRate` (50 %)"),
        ("{ sensitivity: 0 }", "`….breaker.sensitivity`: \"0\" is not a number from 1 to 1000"),
        ("{ sensitivity: inf }", "\"inf\" is not a number"),
        ("{ minDistinctKeys: 0 }", "\"0\" is not a whole number from 1 to 64"),
        ("{ latch: forever }", "`….breaker.latch`: there is no latch \"forever\" | use until-reset"),
        ("{ failon: [ 5xx ] }", "did you mean `failOn`?"),
    ] {
        let found = problems(&block(&format!("weight: 1, breaker: {text}")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_webhook_is_said() {
    for (text, said) in [
        ("{ type: confirm-promotion }", "an item of `….webhooks` needs `type` and `url`"),
        (
            "{ type: confirm-rollout, url: \"http://a\" }",
            "there is no webhook \"confirm-rollout\" | use confirm-promotion, confirm-traffic-increase or notify",
        ),
        ("{ type: notify, url: \"https://a/b\" }", "\"https://a/b\" is HTTPS, which is not spoken here"),
        ("{ type: notify, url: \"ftp://a\" }", "\"ftp://a\" has the scheme `ftp`"),
        ("{ type: notify, url: \"http:///b\" }", "\"http:///b\" is not a URL"),
        ("{ type: notify, url: gate }", "\"gate\" does not begin with `http://HOST`"),
        ("{ type: notify, url: /approve }", "\"/approve\" does not begin with `http://HOST`"),
        ("{ type: notify, url: \"http://a:99999/\" }", "| write such as \"http://gate:8080/approve\""),
        ("{ type: notify, url: \"http://:80/\" }", "is not a URL"),
        ("{ type: notify, url: \"http://a b/\" }", "is not a URL"),
        ("{ type: notify, url: \"http://me:pw@a/\" }", "has a user in it"),
        ("{ type: notify, url: \"http://a/#b\" }", "is not a URL"),
        ("{ type: notify, url: \"http://a\", timeout: 5 }", "\"5\" has no unit"),
        ("{ type: notify, url: \"http://a\", timeout: 2m }", "write a duration from 100ms to 1m, such as 5s"),
        ("{ typ: notify, url: \"http://a\" }", "did you mean `type`?"),
    ] {
        let found = problems(&block(&format!("weight: 1, webhooks: [ {text} ]")));
        assert!(found[0].contains(said), "{text}: {found:?}");
    }
}

#[test]
fn every_problem_of_a_block_is_told_at_once() {
    let text = "match: { header: { name: X-TG-A } }, minReady: 0, steps: [ { setWeight: 200 } ], analysis: { threshold: 0 }, \
                breaker: { latch: x }, webhooks: [ { type: notify, url: a } ]";
    assert_eq!(problems(&block(text)).len(), 6);
}

/// A valid block, at random.
fn blocks() -> impl Strategy<Value = String> {
    let keys = [
        vec!["minReady: 3", "minReady: \"7%\""],
        vec!["whenNotReady: error", "whenNotReady: stable"],
        vec![
            "match: { header: { name: X-B } }",
            "match: { header: { name: X-B, pattern: \"b.*\" } }",
            "match: { cookie: { name: c } }",
        ],
        vec![
            "weight: 0.01",
            "weight: 99.99",
            "steps: [ { mirror: 1 }, { setWeight: 0 }, { pause: {} }, { setWeight: 7 } ]",
        ],
        vec![
            "sessionAffinity: { hashOn: [ { cookie: id }, { sourceIp: true } ], cookieName: id, maxAge: 60 }",
            "sessionAffinity: { hashOn: [ { header: X-U } ], salt: service }",
        ],
        vec![
            "analysis: {}",
            "analysis: { interval: 1500ms, metrics: [ { name: request-duration, percentile: 50, maxDegradation: 1.1x } ] }",
            "analysis: { metrics: [ { name: c, prometheus: { address: \"http://p\", query: q }, thresholdRange: { min: 0.1 } } ] }",
        ],
        vec!["breaker: {}", "breaker: { failOn: [ timeout, 5xx ], sensitivity: 11.6 }"],
        vec!["webhooks: [ { type: confirm-traffic-increase, url: \"http://g:1/a\", timeout: 100ms } ]"],
    ];
    let picks: Vec<_> = keys.iter().map(|key| 0..=key.len()).collect();
    picks.prop_map(move |picks| {
        let mut chosen: Vec<&str> = keys.iter().zip(picks).filter_map(|(key, pick)| key.get(pick)).copied().collect();
        if !chosen.iter().any(|key| key.starts_with("weight") || key.starts_with("steps")) {
            chosen.push("weight: 5");
        }
        block(&chosen.join(", "))
    })
}

proptest! {
    #[test]
    fn what_is_read_can_be_written_and_read_again(text in blocks()) {
        let first = canary(&text);
        let written = serde_json::to_string(&first).unwrap();
        prop_assert_eq!(&written, &serde_json::to_string(&canary(&text)).unwrap());
        let again: Canary = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&again, &*first);
        prop_assert_eq!(serde_json::to_string(&again).unwrap(), written);
    }

    #[test]
    fn no_block_panics(keys in proptest::collection::vec("(minReady|match|header|cookie|name|value|pattern|steps|setWeight|pause|duration|mirror|analysis|metrics|thresholdRange|min|maxDegradation|prometheus|address|breaker|failOn|webhooks|url|timeout|sessionAffinity|hashOn|cookieName|maxAge|weight): ?([\\[{] ?)?[a-z0-9.%:/?#@\\\\\"*()-]{0,12}( ?[\\]}])?", 0..8)) {
        let _ = parse("f", &block(&keys.join(", ")));
        let _ = parse("f", &format!("services:\n  s:\n    canary:\n      {}", keys.join("\n      ")));
    }

    #[test]
    fn no_pattern_panics(pattern in "[a-c(){}\\[\\]|*+?\\\\^$.,0-9&~<>:iPx-]{0,24}") {
        let _ = pattern::check(&pattern);
    }
}
