//! What moves a rollout, one transition at a time.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Command, Counts, Numbers, Origin, Refused, Verdict};
use tidegate_filter_core::Histogram;

use super::*;
use crate::config::canary::{Breaker, Figure, Metric, MinReady, OnInconclusive, Step, Webhook};
use crate::config::{Canary, WHOLE};

pub(in super::super) fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

/// 0.5 % for two minutes, 10 % for ten, 50 % for ten.
fn steps() -> Vec<Step> {
    [(50, 2), (1_000, 10), (5_000, 10)]
        .into_iter()
        .flat_map(|(weight, minutes)| [Step::SetWeight(weight), Step::Pause(Some(Duration::from_mins(minutes)))])
        .collect()
}

pub(in super::super) fn plan(change: impl FnOnce(&mut Canary)) -> Plan {
    let mut canary = Canary { steps: steps(), ..Canary::at(version("v2"), 0) };
    change(&mut canary);
    Plan { stable: version("v1"), canary: canary.into(), origin: Origin::File }
}

fn analysed(change: impl FnOnce(&mut Analysis)) -> Plan {
    let mut analysis = Analysis::default();
    change(&mut analysis);
    plan(|canary| {
        canary.steps = vec![Step::SetWeight(1_000), Step::Pause(Some(Duration::from_mins(1))), Step::SetWeight(5_000)];
        canary.analysis = Some(analysis);
    })
}

fn metric(name: &str, kind: MetricKind, max: f64) -> Metric {
    Metric { name: name.to_owned(), kind, min: None, max: Figure::new(max), max_degradation: None }
}

fn prometheus() -> Metric {
    let kind = MetricKind::Prometheus { address: "http://prometheus:9090".to_owned(), query: "q".to_owned() };
    metric("queue", kind, 10.0)
}

fn webhook(kind: WebhookKind) -> Webhook {
    Webhook { kind, url: "http://gate/ok".to_owned(), timeout: Duration::from_secs(5) }
}

pub(in super::super) fn ready(canary: u32) -> Facts {
    Facts { canary: Census { instances: 1, ready: canary }, stable: Census { instances: 1, ready: 1 } }
}

pub(in super::super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1_000)
}

fn counts(errors: u64, requests: u64) -> Counts {
    Counts { requests, errors, ..Counts::default() }
}

fn seen(canary: (u64, u64), stable: (u64, u64)) -> Sample {
    Sample { canary: counts(canary.0, canary.1), stable: counts(stable.0, stable.1) }
}

fn slow(canary: (u64, u64), stable: (u64, u64)) -> Sample {
    let of = |(count, millis): (u64, u64)| {
        let mut latency = Histogram::default();
        (0..count).for_each(|_| latency.record(millis * 1_000));
        Counts { latency, ..Counts::default() }
    };
    Sample { canary: of(canary), stable: of(stable) }
}

fn trip(rollout: &Rollout, plan: &Plan) -> Trip {
    Trip { epoch: rollout.share(plan).epoch, failures: 7, answers: 9, distinct_keys: 5, stable_rate: 50 }
}

/// A rollout in its first stage since second 0, and its plan.
fn begun(plan: Plan) -> (Rollout, Plan) {
    let mut rollout = Rollout::begin(&plan, None, at(0));
    rollout.advance(&plan, &ready(1), at(0));
    assert_eq!(rollout.step(), Some(0));
    (rollout, plan)
}

fn told(effects: &[Effect]) -> Vec<&Event> {
    let events = effects.iter().filter_map(|effect| match effect {
        Effect::Tell(event) => Some(event),
        Effect::Ask(_) | Effect::Measure(_) => None,
    });
    events.collect()
}

fn hold(rollout: &Rollout) -> Option<Hold> {
    match rollout.phase() {
        Phase::Paused { by, .. } => Some(*by),
        _ => None,
    }
}

fn is_aborted(rollout: &Rollout) -> bool {
    matches!(rollout.phase(), Phase::Aborted { .. })
}

/// Calls it as often as it wants, until `until`; returns the weights it had, in order.
fn run(rollout: &mut Rollout, plan: &Plan, facts: Facts, until: Timestamp) -> Vec<u32> {
    let mut weights = vec![rollout.share(plan).weight];
    loop {
        let due = rollout.deadline(plan).unwrap_or(until).min(until);
        rollout.advance(plan, &facts, due);
        let weight = rollout.share(plan).weight;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        if due == until {
            return weights;
        }
    }
}

#[test]
fn time_alone_takes_it_through_its_steps() {
    let plan = plan(|_| {});
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(run(&mut rollout, &plan, ready(0), at(1_000)), [0]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_000)), [0, 50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_119)), [50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_120)), [50, 1_000]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_719)), [1_000]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(2_320)), [1_000, 5_000, WHOLE]);
    assert_eq!((rollout.phase(), rollout.deadline(&plan)), (&Phase::Promoted, None));
}

#[test]
fn steps_that_nothing_gates_pass_in_one_call_and_each_is_told() {
    let plan = plan(|canary| canary.steps = [0, 1_000, 5_000].map(Step::SetWeight).to_vec());
    let mut rollout = Rollout::begin(&plan, None, at(0));
    let effects = rollout.advance(&plan, &ready(1), at(0));
    let weights: Vec<_> = told(&effects).into_iter().map(|event| (event.what, event.from, event.to)).collect();
    let expected = [
        (What::Began, 0, 0),
        (What::Advanced, 0, 0),
        (What::Advanced, 0, 1_000),
        (What::Advanced, 1_000, 5_000),
        (What::Promoted, 5_000, WHOLE),
    ];
    assert_eq!(weights, expected);
    assert_eq!(rollout.advance(&plan, &ready(1), at(0)), []);
}

#[test]
fn it_waits_for_so_many_ready_instances() {
    let plan = plan(|canary| canary.min_ready = MinReady::Percent(50));
    let facts = |ready| Facts { canary: Census { instances: 3, ready }, ..self::ready(1) };
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(run(&mut rollout, &plan, facts(1), at(9)), [0]);
    assert_eq!(rollout.reason(&plan), "too few of the canary's instances are ready");
    assert_eq!(rollout.operate(&plan, &Command::Promote { full: true }, "ann", at(9)), Err(Refused::NotReady));
    assert_eq!(run(&mut rollout, &plan, facts(2), at(10)), [0, 50]);
}

#[test]
fn a_canary_that_is_not_ready_neither_goes_on_nor_back() {
    let (mut rollout, plan) = begun(plan(|_| {}));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(60)), [50]);
    rollout.advance(&plan, &ready(0), at(60));
    assert_eq!((run(&mut rollout, &plan, ready(0), at(600)), rollout.deadline(&plan)), (vec![50], None));
    rollout.advance(&plan, &ready(1), at(600));
    assert_eq!(rollout.spent(), Duration::from_secs(60));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(659)), [50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(660)), [50, 1_000]);
}

#[test]
fn mirroring_comes_before_the_first_weight_and_is_left_by_time() {
    let mut plan = analysed(|_| {});
    let canary = Arc::make_mut(&mut plan.canary);
    canary.steps = vec![Step::Mirror(2_000), Step::Pause(Some(Duration::from_secs(30))), Step::SetWeight(100)];
    let (mut rollout, plan) = begun(plan);
    assert_eq!((rollout.share(&plan).weight, rollout.share(&plan).mirror), (0, 2_000));
    run(&mut rollout, &plan, ready(1), at(30));
    assert_eq!((rollout.share(&plan).weight, rollout.share(&plan).mirror), (100, 0));
}

#[test]
fn a_pause_without_an_end_waits_for_promote() {
    let plan = plan(|canary| canary.steps = vec![Step::SetWeight(1_000), Step::Pause(None)]);
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(100_000)), [0, 1_000]);
    assert_eq!(rollout.operate(&plan, &Command::Resume, "ann", at(100_000)), Err(Refused::UntilPromoted));
    rollout.operate(&plan, &Command::Promote { full: false }, "ann", at(100_000)).unwrap();
    assert_eq!((rollout.phase(), rollout.share(&plan).weight), (&Phase::Promoted, WHOLE));
}

#[test]
fn another_version_starts_from_nothing_and_another_text_keeps_its_share_until_it_begins() {
    let (mut rollout, old) = begun(plan(|_| {}));
    run(&mut rollout, &old, ready(1), at(120));
    assert_eq!(rollout.share(&old).weight, 1_000);

    let text = plan(|canary| canary.steps = vec![Step::SetWeight(2_000), Step::Pause(None)]);
    assert_ne!(text.generation(), old.generation());
    let mut again = Rollout::begin(&text, Some(&rollout), at(121));
    assert_eq!((again.phase(), again.step(), again.share(&text).weight), (&Phase::Waiting, None, 1_000));
    again.advance(&text, &ready(1), at(121));
    assert_eq!((again.step(), again.share(&text).weight), (Some(0), 2_000));

    let next = plan(|canary| canary.version = version("v3"));
    let superseding = Rollout::begin(&next, Some(&rollout), at(121));
    assert_eq!((superseding.phase(), superseding.share(&next).weight), (&Phase::Waiting, 0));
    let swapped = Plan { stable: version("v0"), ..old.clone() };
    assert_eq!(Rollout::begin(&swapped, Some(&rollout), at(121)).share(&swapped).weight, 0);
}

#[test]
fn a_promoted_canary_stays_so_when_its_text_changes() {
    let (mut rollout, old) = begun(plan(|_| {}));
    rollout.operate(&old, &Command::Promote { full: true }, "ann", at(1)).unwrap();
    let text = plan(|canary| canary.steps = vec![Step::SetWeight(1)]);
    let mut again = Rollout::begin(&text, Some(&rollout), at(2));
    again.advance(&text, &ready(1), at(3));
    assert_eq!((again.phase(), again.share(&text).weight), (&Phase::Promoted, WHOLE));
}

#[test]
fn a_generation_is_the_same_for_the_same_text_wherever_it_stands() {
    let here = plan(|_| {});
    let there = Plan { origin: Origin::Operator, ..here.clone() };
    assert_eq!(here.generation(), there.generation());
    assert!(here.generation().len() == 16 && here.generation().chars().all(|digit| digit.is_ascii_hexdigit()));
    let read: Plan = serde_json::from_str(&serde_json::to_string(&here).unwrap()).unwrap();
    assert_eq!(read.generation(), here.generation());
    for other in [plan(|canary| canary.steps.truncate(2)), Plan { stable: version("v0"), ..here.clone() }] {
        assert_ne!(other.generation(), here.generation());
    }
}

/// What commands do in which phase: the refusal, or the phase and the weight after it.
#[test]
fn commands_do_what_the_phase_permits() {
    let plan = plan(|canary| canary.breaker = Some(Breaker::default()));
    let frozen = {
        let mut plan = plan.clone();
        Arc::make_mut(&mut plan.canary).analysis =
            Some(Analysis { on_failure: OnFailure::Freeze, ..Analysis::default() });
        plan
    };
    let go = |rollout: &mut Rollout, plan: &Plan, command| rollout.operate(plan, &command, "ann", at(1)).unwrap();
    let state = |name: &str| {
        let plan = if name == "tripped" { frozen.clone() } else { plan.clone() };
        let (mut rollout, plan) = begun(plan);
        match name {
            "progressing" => {}
            "paused" => go(&mut rollout, &plan, Command::Pause),
            "set" => go(&mut rollout, &plan, Command::Set(3_000)),
            "aborted" => go(&mut rollout, &plan, Command::Abort),
            "promoted" => go(&mut rollout, &plan, Command::Promote { full: true }),
            "tripped" => {
                let trip = trip(&rollout, &plan);
                rollout.tripped(&plan, "edge-1", &trip, at(1));
            }
            _ => unreachable!(),
        }
        (rollout, plan)
    };
    let promote = Command::Promote { full: false };
    let full = Command::Promote { full: true };
    for (before, command, expected) in [
        ("progressing", Command::Set(WHOLE + 1), Err("a weight is at most 100 %, not 100.01 %")),
        ("progressing", Command::Set(3_000), Ok(("paused", 3_000))),
        ("progressing", promote, Ok(("progressing", 1_000))),
        ("progressing", full, Ok(("promoted", WHOLE))),
        ("progressing", Command::Pause, Ok(("paused", 50))),
        ("progressing", Command::Resume, Err("it is not paused")),
        ("progressing", Command::Abort, Ok(("aborted", 0))),
        ("progressing", Command::Retry, Err("neither failed nor been aborted")),
        ("progressing", Command::Undo, Err("only a promoted canary can be taken back")),
        ("paused", Command::Pause, Err("it is paused already (paused by operator ann)")),
        ("paused", Command::Resume, Ok(("progressing", 50))),
        ("paused", promote, Ok(("progressing", 1_000))),
        ("paused", Command::Retry, Err("neither failed nor been aborted")),
        ("set", Command::Set(4_000), Ok(("paused", 4_000))),
        ("set", Command::Resume, Ok(("progressing", 50))),
        ("set", promote, Ok(("progressing", 1_000))),
        ("set", Command::Abort, Ok(("aborted", 0))),
        ("aborted", Command::Set(1), Err("the canary was aborted (aborted by operator ann): `retry` it first")),
        ("aborted", promote, Err("`retry` it first")),
        ("aborted", Command::Pause, Err("`retry` it first")),
        ("aborted", Command::Resume, Err("`retry` it first")),
        ("aborted", Command::Abort, Err("`retry` it first")),
        ("aborted", Command::Retry, Ok(("waiting", 0))),
        ("aborted", Command::Undo, Err("only a promoted canary can be taken back")),
        ("promoted", Command::Set(1), Err("take it back with `undo`")),
        ("promoted", promote, Err("take it back with `undo`")),
        ("promoted", Command::Abort, Err("take it back with `undo`")),
        ("promoted", Command::Retry, Err("take it back with `undo`")),
        ("promoted", Command::Undo, Ok(("aborted", 0))),
        ("tripped", Command::Set(1), Err("the breaker at edge-1 opened")),
        ("tripped", promote, Err("`retry` starts it again from the first step")),
        ("tripped", full, Err("`retry` starts it again from the first step")),
        ("tripped", Command::Resume, Err("`retry` starts it again from the first step")),
        ("tripped", Command::Abort, Ok(("aborted", 0))),
        ("tripped", Command::Retry, Ok(("waiting", 0))),
    ] {
        let (mut rollout, plan) = state(before);
        let same = rollout.clone();
        let answer = rollout.operate(&plan, &command, "ann", at(2));
        match (answer, expected) {
            (Ok(()), Ok((phase, weight))) => {
                let kind = serde_json::to_value(rollout.phase()).unwrap()["kind"].clone();
                assert_eq!(
                    (kind.as_str(), rollout.share(&plan).weight),
                    (Some(phase), weight),
                    "{before}: {command:?}"
                );
                assert_eq!(told(&rollout.advance(&plan, &ready(0), at(2))).last().unwrap().by, "operator ann");
            }
            (Err(refused), Err(expected)) => {
                assert!(refused.to_string().contains(expected), "{before}: {command:?}: {refused}");
                assert_eq!(rollout, same, "{before}: {command:?} was refused, and changed something");
            }
            (answer, _) => panic!("{before}: {command:?}: {answer:?}"),
        }
    }
}

#[test]
fn what_an_operator_does_is_told_with_name_and_reason() {
    let (mut rollout, plan) = begun(plan(|_| {}));
    rollout.operate(&plan, &Command::Set(3_000), "ann", at(7)).unwrap();
    assert_eq!((rollout.overridden(), rollout.deadline(&plan)), (Some(3_000), Some(at(7))));
    let effects = rollout.advance(&plan, &ready(1), at(7));
    let events = told(&effects);
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(
        (&*event.by, event.what, event.from, event.to, event.step),
        ("operator ann", What::Set, 50, 3_000, Some(0))
    );
    assert_eq!((event.at, &*event.reason), (at(7), "set to 30 % by operator ann"));
}

#[test]
fn a_pause_stops_the_clock_of_the_stage() {
    let (mut rollout, plan) = begun(plan(|_| {}));
    run(&mut rollout, &plan, ready(1), at(50));
    rollout.operate(&plan, &Command::Pause, "ann", at(60)).unwrap();
    assert_eq!(run(&mut rollout, &plan, ready(1), at(5_000)), [50]);
    rollout.operate(&plan, &Command::Resume, "ann", at(5_000)).unwrap();
    assert_eq!(run(&mut rollout, &plan, ready(1), at(5_059)), [50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(5_060)), [50, 1_000]);
}

#[test]
fn a_trip_ends_the_attempt_and_only_a_retry_arms_the_breaker_again() {
    let (mut rollout, plan) = begun(plan(|canary| canary.breaker = Some(Breaker::default())));
    let first = trip(&rollout, &plan);
    assert_eq!(first.epoch, format!("{}-1", plan.generation()));
    for foreign in ["", "0000000000000000-1"] {
        rollout.tripped(&plan, "edge-1", &Trip { epoch: foreign.to_owned(), ..first.clone() }, at(1));
        assert_eq!(rollout.phase(), &Phase::Progressing, "{foreign:?}");
    }
    rollout.tripped(&plan, "edge-1", &first, at(1));
    // What is open stays open.
    assert_eq!(rollout.share(&plan), Share { epoch: first.epoch.clone(), ..Share::default() });
    let effects = rollout.advance(&plan, &ready(1), at(1));
    let event = told(&effects)[0];
    assert_eq!((&*event.by, event.what, event.from, event.to), ("breaker at edge-1", What::Aborted, 50, 0));
    assert_eq!(event.evidence.as_ref().and_then(|evidence| evidence.trip.as_ref()), Some(&first));
    // Edges tell it again and again, and others tell it too.
    rollout.tripped(&plan, "edge-2", &first, at(2));
    assert_eq!(rollout.advance(&plan, &ready(1), at(2)), []);

    rollout.operate(&plan, &Command::Retry, "ann", at(3)).unwrap();
    rollout.tripped(&plan, "edge-1", &first, at(3));
    rollout.advance(&plan, &ready(1), at(3));
    assert_eq!((rollout.share(&plan).weight, rollout.attempt()), (50, 2));
    assert_eq!(rollout.share(&plan).epoch, format!("{}-2", plan.generation()));
    let second = trip(&rollout, &plan);
    rollout.tripped(&plan, "edge-2", &second, at(4));
    assert!(is_aborted(&rollout), "the second attempt's breaker counts, too");
}

#[test]
fn a_trip_freezes_at_nothing_where_failures_freeze() {
    let mut plan = analysed(|analysis| analysis.on_failure = OnFailure::Freeze);
    Arc::make_mut(&mut plan.canary).breaker = Some(Breaker::default());
    let (mut rollout, plan) = begun(plan);
    let trip = trip(&rollout, &plan);
    rollout.tripped(&plan, "edge-1", &trip, at(1));
    // The epoch stays, so that the edges' breakers do.
    assert_eq!(rollout.share(&plan), Share { weight: 0, mirror: 0, epoch: trip.epoch });
    assert_eq!((hold(&rollout), run(&mut rollout, &plan, ready(1), at(9_999))), (Some(Hold::Frozen), vec![0]));
}

#[test]
fn webhooks_delay_each_raise_until_they_agree() {
    let (increase, promotion) = (WebhookKind::ConfirmTrafficIncrease, WebhookKind::ConfirmPromotion);
    let plan = plan(|canary| {
        canary.steps = vec![Step::SetWeight(1_000), Step::SetWeight(1_000)];
        canary.webhooks = [increase, promotion, WebhookKind::Notify].map(webhook).to_vec();
    });
    let asks = |effects: Vec<Effect>| {
        effects.into_iter().filter(|effect| matches!(effect, Effect::Ask(_))).collect::<Vec<_>>()
    };
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(asks(rollout.advance(&plan, &ready(0), at(0))), [], "not before it could go on");
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(0))), [Effect::Ask(increase)]);
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(1))), []);
    assert_eq!(rollout.reason(&plan), "confirm-traffic-increase has not answered yet");
    rollout.answered(&plan, promotion, Ok(()), at(1));
    rollout.answered(&plan, increase, Err("not on Fridays".to_owned()), at(1));
    assert_eq!(rollout.reason(&plan), "confirm-traffic-increase does not agree: not on Fridays");
    assert_eq!(told(&rollout.advance(&plan, &ready(1), at(1)))[0].what, What::Held);
    assert_eq!((rollout.deadline(&plan), rollout.share(&plan).weight), (Some(at(11)), 0));
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(11))), [Effect::Ask(increase)]);
    // The same refusal is told once.
    rollout.answered(&plan, increase, Err("not on Fridays".to_owned()), at(12));
    assert_eq!(rollout.advance(&plan, &ready(1), at(12)), []);
    // Unanswered: after its timeout, and ten seconds.
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(22))), [Effect::Ask(increase)]);
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(36))), []);
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(37))), [Effect::Ask(increase)]);
    rollout.answered(&plan, increase, Ok(()), at(38));
    // A step that raises nothing asks nobody; the whole asks others.
    assert_eq!(asks(rollout.advance(&plan, &ready(1), at(38))), [Effect::Ask(promotion)]);
    assert_eq!((rollout.step(), rollout.share(&plan).weight), (Some(1), 1_000));
    rollout.answered(&plan, increase, Ok(()), at(39));
    rollout.advance(&plan, &ready(1), at(39));
    assert_eq!(rollout.share(&plan).weight, 1_000);
    rollout.answered(&plan, promotion, Ok(()), at(40));
    rollout.advance(&plan, &ready(1), at(40));
    assert_eq!(rollout.phase(), &Phase::Promoted);
    // Nobody is asked when an operator says so.
    let mut rollout = Rollout::begin(&plan, None, at(0));
    rollout.advance(&plan, &ready(1), at(0));
    rollout.operate(&plan, &Command::Promote { full: true }, "ann", at(1)).unwrap();
    assert_eq!(rollout.phase(), &Phase::Promoted);
}

#[test]
fn what_was_asked_under_another_share_is_forgotten() {
    let mut plan = analysed(|_| {});
    Arc::make_mut(&mut plan.canary).steps = vec![Step::SetWeight(1_000)];
    Arc::make_mut(&mut plan.canary).webhooks = vec![webhook(WebhookKind::ConfirmPromotion)];
    let (mut rollout, plan) = begun(plan);
    rollout.observe(&seen((0, 10_000), (0, 90_000)));
    assert_eq!(rollout.advance(&plan, &ready(1), at(1)), [Effect::Ask(WebhookKind::ConfirmPromotion)]);
    rollout.operate(&plan, &Command::Set(10), "ann", at(2)).unwrap();
    rollout.operate(&plan, &Command::Resume, "ann", at(20)).unwrap();
    rollout.advance(&plan, &ready(1), at(20));
    // It has to pass first, and is not due before the next look.
    assert_eq!(rollout.deadline(&plan), Some(at(25)));
}

#[test]
fn a_stage_is_left_when_the_canary_is_shown_to_be_no_worse() {
    let (mut rollout, plan) = begun(analysed(|_| {}));
    rollout.observe(&seen((0, 299), (13, 2_691)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(60)), [1_000]);
    assert_eq!(rollout.reason(&plan), "299 of at least 300 requests");
    // Enough requests, but they may be 1.5 points worse; the next time counts half as much more.
    rollout.observe(&seen((1, 1), (0, 0)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(65)), [1_000]);
    assert!(rollout.reason(&plan).contains("may be"), "{}", rollout.reason(&plan));
    rollout.observe(&seen((0, 149), (0, 9_999)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(70)), [1_000], "449 of 450");
    rollout.observe(&seen((0, 1_000), (50, 10_000)));
    let effects = rollout.advance(&plan, &ready(1), at(75));
    assert_eq!(rollout.share(&plan).weight, 5_000);
    let event = told(&effects)[0];
    assert_eq!((&*event.by, event.what), ("analysis", What::Advanced));
    let finding = &event.evidence.as_ref().unwrap().findings[0];
    let Numbers::Rates { requests: 1_449, errors: 1, stable_requests: 22_690, stable_errors: 63, confidence, .. } =
        finding.numbers
    else {
        panic!("{finding:?}")
    };
    assert_eq!((finding.verdict, confidence), (Verdict::Good, 98.75), "the second time: 5 % / 4");
    // What was seen in one stage counts for no other.
    assert_eq!(*rollout.seen(), Sample::default());
}

#[test]
fn a_canary_that_is_surely_worse_is_rolled_back_at_the_next_look() {
    let (mut rollout, plan) = begun(analysed(|_| {}));
    rollout.observe(&seen((3, 10), (0, 90)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(5)), [1_000], "E is 250");
    rollout.observe(&seen((1, 1), (0, 9)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(9)), [1_000], "no look is due");
    let effects = rollout.advance(&plan, &ready(1), at(10));
    assert_eq!((is_aborted(&rollout), rollout.share(&plan).weight), (true, 0));
    let event = told(&effects)[0];
    assert_eq!((&*event.by, event.what, event.from, event.to), ("analysis", What::Aborted, 1_000, 0));
    assert!(
        event.reason.starts_with("request-success-rate: 4 of 11 requests failed, and 0 of 99 of stable's"),
        "{}",
        event.reason
    );
    assert_eq!(event.evidence.as_ref().unwrap().findings[0].verdict, Verdict::Worse);
}

#[test]
fn what_is_sure_but_tolerated_rolls_nothing_back() {
    let (mut rollout, plan) = begun(analysed(|_| {}));
    rollout.observe(&seen((900, 100_000), (0, 900_000)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(60)), [1_000, 5_000], "0.9 points, and 1 is tolerated");
}

#[test]
fn a_failure_freezes_or_is_only_told_where_that_is_wanted() {
    let bad = seen((50, 100), (0, 900));
    let (mut rollout, plan) = begun(analysed(|analysis| analysis.on_failure = OnFailure::Freeze));
    rollout.observe(&bad);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(9_999)), [1_000]);
    assert_eq!((hold(&rollout), rollout.deadline(&plan)), (Some(Hold::Frozen), None));
    // Whoever lets it go on begins to count anew.
    rollout.operate(&plan, &Command::Resume, "ann", at(9_999)).unwrap();
    assert_eq!(run(&mut rollout, &plan, ready(1), at(10_020)), [1_000]);
    assert_eq!(rollout.phase(), &Phase::Progressing);

    let (mut rollout, plan) = begun(analysed(|analysis| analysis.dry_run = true));
    let mut would = 0;
    for second in 0..=60 {
        rollout.observe(&bad);
        let effects = rollout.advance(&plan, &ready(1), at(second));
        would += told(&effects).iter().filter(|event| event.what == What::WouldAct).count();
    }
    // The stage after has no pause, so that the whole follows at once.
    assert_eq!((would, rollout.phase()), (1, &Phase::Promoted));
}

#[test]
fn a_stage_that_stays_undecided_pauses_or_is_rolled_back() {
    for (choice, aborted) in [(OnInconclusive::Pause, false), (OnInconclusive::Rollback, true)] {
        let (mut rollout, plan) = begun(analysed(|analysis| analysis.on_inconclusive = choice));
        assert_eq!(run(&mut rollout, &plan, ready(1), at(60 + 1_799)), [1_000]);
        assert_eq!(rollout.phase(), &Phase::Progressing);
        run(&mut rollout, &plan, ready(1), at(60 + 1_800));
        assert_eq!((is_aborted(&rollout), hold(&rollout).is_some()), (aborted, !aborted));
        if !aborted {
            // The same time again.
            rollout.operate(&plan, &Command::Resume, "ann", at(3_000)).unwrap();
            run(&mut rollout, &plan, ready(1), at(4_799));
            assert_eq!(rollout.phase(), &Phase::Progressing);
            run(&mut rollout, &plan, ready(1), at(4_800));
            assert_eq!(hold(&rollout), Some(Hold::Inconclusive));
        }
    }
}

#[test]
fn a_paused_rollout_is_still_rolled_back() {
    let (mut rollout, plan) = begun(analysed(|_| {}));
    rollout.operate(&plan, &Command::Set(2_000), "ann", at(1)).unwrap();
    rollout.observe(&seen((50, 100), (0, 400)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(10)), [2_000, 0]);
}

#[test]
fn looks_fail_only_on_what_is_surely_out_of_range_and_new() {
    let floor = |analysis: &mut Analysis| {
        analysis.metrics[0].min = Figure::new(99.0);
        analysis.metrics[0].max_degradation = None;
    };
    let (mut rollout, plan) = begun(analysed(floor));
    rollout.observe(&seen((1, 3), (0, 0)));
    run(&mut rollout, &plan, ready(1), at(5));
    assert_eq!(rollout.failed_looks(), 0, "one of three may be chance");
    rollout.observe(&seen((9, 97), (0, 0)));
    run(&mut rollout, &plan, ready(1), at(30));
    assert_eq!(rollout.failed_looks(), 1, "nothing was seen after the second look");
    rollout.observe(&seen((0, 1), (0, 0)));
    run(&mut rollout, &plan, ready(1), at(35));
    rollout.observe(&seen((0, 1), (0, 0)));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(40)), [1_000, 0]);
}

#[test]
fn durations_are_compared_only_where_enough_of_them_are_known() {
    let duration = |analysis: &mut Analysis| {
        let max_degradation = Figure::new(1.25);
        let duration = metric("request-duration", MetricKind::Duration { percentile: 99 }, 500.0);
        analysis.metrics = vec![Metric { max_degradation, ..duration }];
    };
    let requests = seen((0, 300), (0, 2_700));
    for (sample, verdict, words) in [
        (slow((99, 10), (2_000, 10)), Verdict::Undecided, "99 of at least 100 answers for p90"),
        (slow((100, 10), (99, 10)), Verdict::Undecided, "99 of at least 100 answers of stable for p90"),
        (slow((100, 10), (2_000, 10)), Verdict::Good, "p90 is"),
        (slow((1_000, 10), (2_000, 10)), Verdict::Good, "p99 is"),
        (slow((1_000, 13), (2_000, 10)), Verdict::Undecided, "1.28 times"),
        (slow((1_000, 600), (2_000, 600)), Verdict::Bad, "is above 500 ms"),
        (slow((99, 600), (2_000, 10)), Verdict::Undecided, "99 of at least 100"),
    ] {
        let (mut rollout, plan) = begun(analysed(duration));
        rollout.observe(&requests);
        rollout.observe(&sample);
        run(&mut rollout, &plan, ready(1), at(59));
        let finding = rollout.evidence().unwrap().findings[0].clone();
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.reason.contains(words), "{finding:?}");
        run(&mut rollout, &plan, ready(1), at(60));
        assert_eq!(rollout.step() == Some(1), verdict == Verdict::Good, "{finding:?}");
    }
}

#[test]
fn a_prometheus_metric_is_asked_at_each_look_and_counts_once() {
    let (mut rollout, plan) = begun(analysed(|analysis| analysis.metrics.push(prometheus())));
    let enough = seen((0, 3_000), (0, 27_000));
    rollout.observe(&enough);
    let effects = rollout.advance(&plan, &ready(1), at(5));
    assert_eq!(effects, [Effect::Measure("queue".to_owned())]);
    run(&mut rollout, &plan, ready(1), at(60));
    assert_eq!(rollout.reason(&plan), "queue: not measured yet");
    for (result, words) in [
        (Err("connection refused".to_owned()), "queue: not measured: connection refused"),
        (Ok(f64::NAN), "queue: not measured: the answer is no number: NaN"),
        (Ok(11.0), "queue: 11.00 is above 10"),
    ] {
        rollout.measured(&plan, "queue", result, at(60));
        rollout.advance(&plan, &ready(1), at(60));
        assert_eq!(rollout.reason(&plan), words);
    }
    run(&mut rollout, &plan, ready(1), at(80));
    assert_eq!(rollout.failed_looks(), 1, "one answer is one failed look");
    rollout.measured(&plan, "other", Ok(1.0), at(80));
    rollout.measured(&plan, "queue", Ok(9.0), at(80));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(80)), [1_000, 5_000]);
    for _ in 0..3 {
        rollout.measured(&plan, "queue", Ok(11.0), at(80));
        let due = rollout.deadline(&plan).unwrap();
        rollout.advance(&plan, &ready(1), due);
    }
    assert!(is_aborted(&rollout), "{:?}", rollout.phase());
}

#[test]
fn at_the_whole_a_canary_is_compared_with_what_stable_did_before() {
    let mut plan = analysed(|_| {});
    Arc::make_mut(&mut plan.canary).steps = vec![Step::SetWeight(WHOLE), Step::Pause(Some(Duration::from_mins(1)))];
    let mut rollout = Rollout::begin(&plan, None, at(0));
    rollout.observe(&seen((9, 9), (5, 10_000)));
    let nobody = Facts { stable: Census::default(), ..ready(1) };
    run(&mut rollout, &plan, nobody, at(1));
    rollout.observe(&seen((0, 1_000), (0, 0)));
    run(&mut rollout, &plan, nobody, at(61));
    assert_eq!(rollout.phase(), &Phase::Promoted, "{}", rollout.reason(&plan));
}

#[test]
fn nothing_is_compared_with_a_stable_version_that_is_down() {
    let (mut rollout, plan) = begun(analysed(|_| {}));
    let down = Facts { stable: Census { instances: 1, ready: 0 }, ..ready(1) };
    rollout.observe(&seen((0, 10_000), (90_000, 90_000)));
    assert_eq!(run(&mut rollout, &plan, down, at(600)), [1_000]);
    assert!(rollout.reason(&plan).contains("no instance of stable is ready"), "{}", rollout.reason(&plan));
}

#[test]
fn time_that_nobody_watched_counts_little() {
    let (mut rollout, plan) = begun(plan(|_| {}));
    rollout.advance(&plan, &ready(1), at(10));
    // An hour forth, and back.
    rollout.advance(&plan, &ready(1), at(3_610));
    rollout.advance(&plan, &ready(1), at(10));
    assert_eq!(rollout.spent(), Duration::from_secs(10) + LONGEST_GAP);
    // Another process, with another clock.
    rollout.resumed(Duration::from_secs(3), at(5));
    rollout.resumed(Duration::from_hours(9), at(5));
    rollout.advance(&plan, &ready(1), at(6));
    assert_eq!(rollout.spent(), Duration::from_secs(14) + 2 * LONGEST_GAP);
}
