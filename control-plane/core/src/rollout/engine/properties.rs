//! What holds of a rollout whatever happens to it, in whatever order.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_filter_core::Histogram;

use super::super::{Command, Counts, Origin, Record, Rollouts};
use super::tests::{at, plan, ready, version};
use super::*;
use crate::ServiceName;
use crate::config::canary::{Breaker, Figure, Metric, MinReady, OnInconclusive, Step, Webhook};
use crate::config::{Canary, WHOLE};

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    /// The clock alone, in milliseconds.
    Jump(i64),
    Ready {
        canary: u32,
        stable: u32,
    },
    Operate(Command),
    Observe(Sample),
    Measure(Result<f64, String>),
    Answer(WebhookKind, bool),
    Trip {
        current: bool,
    },
    Restart(u64),
    /// Another text of the same versions, or the next version.
    Declare {
        next: bool,
    },
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (0..=WHOLE + 1).prop_map(Command::Set),
        any::<bool>().prop_map(|full| Command::Promote { full }),
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Abort),
        Just(Command::Retry),
        Just(Command::Undo),
    ]
}

fn counts(most: u64) -> impl Strategy<Value = Counts> {
    (0..=most, 0..=most, prop::collection::vec(0..2_000_000_u64, 0..20)).prop_map(|(requests, errors, micros)| {
        let mut latency = Histogram::default();
        micros.into_iter().for_each(|micros| latency.record(micros));
        Counts { requests, errors, latency }
    })
}

fn act() -> impl Strategy<Value = Act> {
    let kinds = prop_oneof![Just(WebhookKind::ConfirmTrafficIncrease), Just(WebhookKind::ConfirmPromotion)];
    let sample =
        |most| (counts(most), counts(most)).prop_map(|(canary, stable)| Act::Observe(Sample { canary, stable }));
    prop_oneof![
        8 => (0..40_000_u64).prop_map(Act::Wait),
        1 => (-9_000_000..9_000_000_i64).prop_map(Act::Jump),
        2 => (0..3_u32, 0..2_u32).prop_map(|(canary, stable)| Act::Ready { canary, stable }),
        2 => command().prop_map(Act::Operate),
        2 => sample(500),
        1 => sample(u64::MAX),
        1 => prop_oneof![any::<f64>().prop_map(Ok), Just(Err("no route to host".to_owned()))].prop_map(Act::Measure),
        3 => (kinds, any::<bool>()).prop_map(|(kind, agrees)| Act::Answer(kind, agrees)),
        1 => any::<bool>().prop_map(|current| Act::Trip { current }),
        1 => (0..100_000_u64).prop_map(Act::Restart),
        1 => any::<bool>().prop_map(|next| Act::Declare { next }),
    ]
}

fn analysis() -> impl Strategy<Value = Analysis> {
    (any::<[bool; 3]>(), 0..400_u64, 1..30_u64).prop_map(|([freeze, rollback, dry_run], min_samples, seconds)| {
        let mut analysis =
            Analysis { min_samples, dry_run, interval: Duration::from_secs(seconds), ..Analysis::default() };
        analysis.max_step_duration = Duration::from_mins(2);
        analysis.on_failure = if freeze { OnFailure::Freeze } else { OnFailure::Rollback };
        analysis.on_inconclusive = if rollback { OnInconclusive::Rollback } else { OnInconclusive::Pause };
        let more = [
            ("duration", MetricKind::Duration { percentile: 99 }),
            ("queue", MetricKind::Prometheus { address: "http://p:9090".to_owned(), query: "q".to_owned() }),
        ];
        let more = more.into_iter().take(min_samples as usize % 3).map(|(name, kind)| Metric {
            name: name.to_owned(),
            kind,
            min: None,
            max: Figure::new(1_000.0),
            max_degradation: None,
        });
        analysis.metrics.extend(more);
        analysis
    })
}

fn declared() -> impl Strategy<Value = Plan> {
    let step = (0..3_000_u32, prop_oneof![3 => (0..120_u64).prop_map(Some), 1 => Just(None)]);
    let steps = prop::collection::vec(step, 1..5);
    (steps, prop::option::of(analysis()), any::<[bool; 4]>()).prop_map(
        |(steps, analysis, [breaker, increase, promotion, mirror])| {
            let mut weight = 0;
            let mut all =
                if mirror { vec![Step::Mirror(500), Step::Pause(Some(Duration::from_secs(5)))] } else { vec![] };
            for (more, pause) in steps {
                weight = (weight + more).min(WHOLE);
                all.extend([Step::SetWeight(weight), Step::Pause(pause.map(Duration::from_secs))]);
            }
            let webhook = |kind| Webhook { kind, url: "http://gate".to_owned(), timeout: Duration::from_secs(5) };
            plan(|canary| {
                canary.steps = all;
                canary.analysis = analysis;
                canary.breaker = breaker.then(Breaker::default);
                canary.webhooks.extend(increase.then(|| webhook(WebhookKind::ConfirmTrafficIncrease)));
                canary.webhooks.extend(promotion.then(|| webhook(WebhookKind::ConfirmPromotion)));
                canary.min_ready = MinReady::Percent(50);
            })
        },
    )
}

/// A rollout, and what it stands in.
#[derive(Clone)]
struct World {
    rollout: Rollout,
    plan: Plan,
    facts: Facts,
    now: Timestamp,
}

impl World {
    fn new(plan: Plan) -> Self {
        let now = at(0);
        Self { rollout: Rollout::begin(&plan, None, now), plan, facts: ready(1), now }
    }

    /// Returns what followed.
    fn play(&mut self, act: &Act) -> Vec<Effect> {
        let Self { rollout, plan, now, .. } = self;
        match act {
            Act::Wait(millis) => *now = now.after(Duration::from_millis(*millis)),
            Act::Jump(millis) => *now = Timestamp::from_millis(now.as_millis().saturating_add_signed(*millis)),
            Act::Ready { canary, stable } => {
                self.facts = Facts {
                    canary: Census { instances: 2, ready: *canary },
                    stable: Census { instances: 1, ready: *stable },
                };
            }
            Act::Operate(command) => {
                let before = rollout.clone();
                if rollout.operate(plan, command, "ann", *now).is_err() {
                    assert_eq!(*rollout, before);
                }
            }
            Act::Observe(sample) => rollout.observe(sample),
            Act::Measure(result) => rollout.measured(plan, "queue", result.clone(), *now),
            Act::Answer(kind, agrees) => {
                let answer = if *agrees { Ok(()) } else { Err("no".to_owned()) };
                rollout.answered(plan, *kind, answer, *now);
            }
            Act::Trip { current } => {
                let epoch = if *current { rollout.share(plan).epoch } else { "other-1".to_owned() };
                rollout.tripped(plan, "edge-1", &Trip { epoch, ..Trip::default() }, *now);
            }
            Act::Restart(away) => rollout.resumed(Duration::from_millis(*away), *now),
            Act::Declare { next } => {
                let canary: &mut Canary = Arc::make_mut(&mut plan.canary);
                if *next {
                    canary.version = version(if canary.version.as_str() == "v2" { "v3" } else { "v2" });
                } else {
                    canary.cookie = None;
                    canary.steps.push(Step::Pause(Some(Duration::from_secs(1))));
                }
                *rollout = Rollout::begin(plan, Some(rollout), *now);
            }
        }
        rollout.advance(plan, &self.facts, *now)
    }
}

fn kept(rollout: &Rollout) -> Rollout {
    let service = ServiceName::new("shop").unwrap();
    let mut rollouts = Rollouts::default();
    let record = Record { rollout: rollout.clone(), declared: None, history: [].into(), promoted: None, over: false };
    rollouts.insert(service.clone(), record);
    let text = serde_json::to_string(&rollouts).unwrap();
    let read: Rollouts = serde_json::from_str(&text).unwrap();
    assert_eq!(read, rollouts);
    read.get(&service).unwrap().rollout.clone()
}

proptest! {
    #[test]
    fn no_weight_is_without_a_cause(plan in declared(), acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new(plan);
        for act in acts {
            let before = world.rollout.share(&world.plan).weight;
            let phase = world.rollout.phase().clone();
            let effects = world.play(&act);
            let stages = world.plan.stages();
            let mut weight = before;
            for effect in effects {
                let Effect::Tell(event) = effect else { continue };
                // What is told is one chain from the share before to the one after.
                prop_assert_eq!(event.from, weight, "{:?}", event);
                weight = event.to;
                let of_step = event.step.map_or(0, |step| stages.get(step).map_or(WHOLE, |stage| stage.weight));
                match event.what {
                    What::Advanced | What::Promoted => prop_assert_eq!(event.to, of_step, "{:?}", event),
                    // Before its first stage it may have what it had under another declaration.
                    What::Resumed => prop_assert!(event.to == of_step || event.to == event.from, "{:?}", event),
                    What::Set => prop_assert_eq!(Some(event.to), world.rollout.overridden(), "{:?}", event),
                    What::Began => prop_assert!(event.to == event.from || event.to == 0, "{:?}", event),
                    What::Aborted | What::Undone | What::Retried => prop_assert_eq!(event.to, 0),
                    What::Frozen => prop_assert!(event.to == event.from || event.to == 0, "{:?}", event),
                    What::Paused | What::Held | What::WouldAct => prop_assert_eq!(event.to, event.from),
                }
                prop_assert!(!event.by.is_empty() && !event.reason.is_empty(), "{:?}", event);
            }
            prop_assert_eq!(weight, world.rollout.share(&world.plan).weight, "it changed untold");
            prop_assert!(weight <= WHOLE);
            // What has ended, or is frozen, goes on by an operator's word or another declaration alone.
            let ended = match &phase {
                Phase::Aborted { .. } | Phase::Promoted => true,
                Phase::Paused { by, .. } => *by == Hold::Frozen,
                Phase::Waiting | Phase::Progressing => false,
            };
            if ended && !matches!(act, Act::Operate(_) | Act::Declare { .. } | Act::Trip { .. }) {
                prop_assert_eq!(world.rollout.phase(), &phase);
                prop_assert_eq!(weight, before);
            }
        }
    }

    #[test]
    fn called_again_at_the_same_moment_it_does_nothing_and_its_deadline_lies_ahead(
        plan in declared(),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(plan);
        for act in acts {
            world.play(&act);
            let before = world.rollout.clone();
            prop_assert_eq!(world.rollout.advance(&world.plan, &world.facts, world.now), vec![]);
            prop_assert_eq!(&world.rollout, &before);
            if let Some(deadline) = world.rollout.deadline(&world.plan) {
                prop_assert!(deadline > world.now, "{:?}", world.rollout);
            }
            prop_assert!(!world.rollout.reason(&world.plan).contains("  "));
        }
    }

    #[test]
    fn what_is_kept_and_read_again_has_the_same_future(
        plan in declared(),
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let mut world = World::new(plan);
        let mut twin = world.clone();
        for act in acts {
            twin.rollout = kept(&twin.rollout);
            prop_assert_eq!(world.play(&act), twin.play(&act));
            prop_assert_eq!(&world.rollout, &twin.rollout);
        }
    }

    /// However the clock jumps and however long a restart is said to have taken: each jump forth makes a pause shorter by no more than
    /// the longest gap, and each jump back makes it longer by no more than what passed at that moment.
    #[test]
    fn jumps_of_the_clock_make_a_pause_hardly_shorter_or_longer(
        hops in prop::collection::vec(
            (1..=10_000_u64, prop::option::weighted(0.05, (any::<bool>(), -9_000_000..9_000_000_i64))),
            100,
        ),
    ) {
        let bake = Duration::from_secs(120);
        let plan = plan(|canary| canary.steps = vec![Step::SetWeight(100), Step::Pause(Some(bake))]);
        let mut world = World::new(plan);
        world.play(&Act::Wait(0));
        let (mut truly, mut early, mut late) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for (millis, jump) in hops {
            let passed = Duration::from_millis(millis);
            truly += passed;
            world.now = world.now.after(passed);
            if let Some((restart, jump)) = jump {
                early += LONGEST_GAP;
                late += passed;
                world.play(&Act::Jump(jump));
                if restart {
                    early += LONGEST_GAP;
                    world.play(&Act::Restart(jump.unsigned_abs()));
                }
            } else {
                world.play(&Act::Wait(0));
            }
            if *world.rollout.phase() == Phase::Promoted {
                prop_assert!(truly + early >= bake, "after {:?}", truly);
                return Ok(());
            }
            prop_assert!(truly < bake + late, "still waiting after {:?}", truly);
        }
    }

    #[test]
    fn damage_is_told_and_never_read(plan in declared(), acts in prop::collection::vec(act(), 1..20), at: prop::sample::Index, bit in 0..8_u32, cut: bool) {
        let mut world = World::new(plan.clone());
        let mut record = Record::begin(&plan, None, world.now);
        record.declared = Some(Plan { origin: Origin::Operator, ..plan });
        for act in acts {
            let effects = world.play(&act);
            record.history.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Tell(event) => Some(event),
                Effect::Ask(_) | Effect::Measure(_) => None,
            }));
        }
        record.rollout = world.rollout;
        let mut rollouts = Rollouts::default();
        rollouts.insert(ServiceName::new("shop").unwrap(), record);
        let mut text = serde_json::to_vec(&rollouts).unwrap();
        let at = at.index(text.len());
        if cut {
            text.truncate(at);
        } else {
            text[at] ^= 1 << bit;
        }
        match serde_json::from_slice::<Rollouts>(&text) {
            Ok(read) => prop_assert_eq!(read, rollouts),
            Err(reason) => prop_assert!(!reason.to_string().is_empty()),
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in any::<String>(), json in "[\\[\\]{}\",:0-9a-z ]{0,60}") {
        prop_assert!(serde_json::from_str::<Rollouts>(&text).is_err());
        let _ = serde_json::from_str::<Rollouts>(&json);
    }
}
