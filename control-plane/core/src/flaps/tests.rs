use proptest::prelude::*;

use super::*;
use crate::testing::service;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn at(seconds: f64) -> Timestamp {
    START.after(Duration::from_secs_f64(seconds))
}

/// Falls at these seconds; whether the container is out after each.
fn out(falls: &[(f64, bool)]) -> Vec<bool> {
    let mut flaps = Flaps::default();
    let mut out = Vec::new();
    for (second, asked) in falls {
        flaps.release(at(*second));
        flaps.fell("c", &service("shop"), *asked, at(*second));
        out.push(flaps.damped("c").is_some());
    }
    out
}

#[test]
fn two_falls_within_a_minute_damp_and_further_apart_do_not() {
    assert_eq!(out(&[(0.0, false), (59.0, false)]), [false, true]);
    assert_eq!(out(&[(0.0, false), (61.0, false)]), [false, false]);
    assert_eq!(out(&[(0.0, false)]), [false]);
}

#[test]
fn a_restart_that_was_asked_for_is_not_damped_and_a_loop_of_them_is() {
    assert_eq!(out(&[(0.0, true), (1.0, true), (2.0, true), (3.0, true)]), [false, false, false, true]);
    assert_eq!(out(&[(0.0, true), (0.5, false)]), [false, false], "a restart, and one mishap");
}

#[test]
fn who_is_back_is_said_in_advance_and_bounded() {
    let mut flaps = Flaps::default();
    for second in 0..100 {
        flaps.fell("c", &service("shop"), false, at(f64::from(second)));
    }
    let (flap, until) = flaps.damped("c").unwrap();
    assert_eq!((flap.falls, until), (100, at(99.0).after(Duration::from_secs(120))));
    assert_eq!(flaps.deadline(), Some(until));
    assert!(flaps.release(until.after(Duration::from_millis(1))).contains(&service("shop")));
    assert!(flaps.damped("c").is_none() && flaps.deadline().is_none());
}

#[test]
fn an_instance_of_two_services_falls_once_and_both_are_told() {
    let mut flaps = Flaps::default();
    for second in [0.0, 1.0] {
        flaps.fell("c", &service("a"), false, at(second));
        flaps.fell("c", &service("b"), false, at(second));
    }
    let (flap, until) = flaps.damped("c").unwrap();
    assert_eq!(flap.falls, 2);
    assert_eq!(flaps.release(until), [service("a"), service("b")].into());
}

#[test]
fn the_penalty_ends_with_its_container() {
    let mut flaps = Flaps::default();
    for container in ["c", "d"] {
        flaps.fell(container, &service("shop"), false, at(0.0));
        flaps.fell(container, &service("shop"), false, at(1.0));
    }
    flaps.forget("c");
    assert!(flaps.damped("c").is_none() && flaps.damped("d").is_some());
    flaps.forget("d");
    assert!(flaps.damped("d").is_none());
    assert_eq!(flaps.deadline(), None);
}

proptest! {
    /// Whatever a container does: of what is published, no minute sees more than two comings and two goings.
    #[test]
    fn no_minute_has_more_than_four_changes(pauses in prop::collection::vec((1_u64..40_000, 1_u64..90_000), 1..200)) {
        let mut flaps = Flaps::default();
        let mut now = START;
        let mut changes = Vec::new();
        for (down, up) in pauses {
            // It comes up, and is published unless it is out, or when it is back, if it still runs then.
            now = now.after(Duration::from_millis(down));
            flaps.release(now);
            let end = now.after(Duration::from_millis(up));
            let published = match flaps.damped("c") {
                None => Some(now),
                Some((_, until)) => (until < end).then_some(until),
            };
            flaps.release(end);
            now = end;
            flaps.fell("c", &service("shop"), false, now);
            if let Some(came) = published {
                changes.extend([came, now]);
            }
        }
        for (index, first) in changes.iter().enumerate() {
            let within = changes[index..].iter().take_while(|at| at.since(*first) < HALF_LIFE).count();
            prop_assert!(within <= 4, "{within} changes within a minute of {first}");
        }
    }
}
