//! The arithmetic of evidence: an anytime-valid test of two counts of errors, intervals of shares, tails of the binomial. Numbers in,
//! numbers out; what follows from them is the judge's business.
//!
//! Sources: Lindon & Malek, *Anytime-Valid Inference for Multinomial Count Data* (arXiv 2011.03567) for [`ln_e`]; Newcombe, *Interval
//! estimation for the difference between independent proportions*, Statistics in Medicine 17 (1998), method 10, for [`difference_at_most`].

/// Requests, and those of them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors {
    pub(super) errors: u64,
    pub(super) of: u64,
}

impl Errors {
    /// The share that failed; nothing of nothing.
    pub(super) fn rate(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.errors.min(self.of) as f64 / self.of as f64 }
    }
}

/// The logarithm of the evidence that the canary fails more than its share, as an e-process: were both versions equal, it would ever
/// reach `ln(1/alpha)` with a chance of at most `alpha`, however often one looks. Each error is the canary's with the chance `share`, its
/// share of the requests; the alternative is a uniform mixture of all other chances, B(1, 1).
pub(super) fn ln_e(canary_errors: u64, stable_errors: u64, share: f64) -> f64 {
    // Where only one version is asked, nothing tells them apart.
    if !(share > 0.0 && share < 1.0) {
        return 0.0;
    }
    let (canary, stable) = (canary_errors as f64, stable_errors as f64);
    let mixture = ln_gamma(canary + 1.0) + ln_gamma(stable + 1.0) - ln_gamma(canary + stable + 2.0);
    mixture - canary * share.ln() - stable * (-share).ln_1p()
}

/// Wilson's interval of a share, at this many standard deviations.
pub(super) fn interval(seen: Errors, z: f64) -> (f64, f64) {
    if seen.of == 0 {
        return (0.0, 1.0);
    }
    let (n, p, z2) = (seen.of as f64, seen.rate(), z * z);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// The 95 % interval of a share of which so many were seen; `None`: nothing was.
#[must_use]
pub fn share_interval(part: u64, all: u64) -> Option<[f64; 2]> {
    let (low, high) = interval(Errors { errors: part, of: all }, z(0.025));
    (all > 0).then_some([low, high])
}

/// How much larger the canary's share of errors is than the stable version's at most: Newcombe's upper bound, at this many standard
/// deviations.
pub(super) fn difference_at_most(canary: Errors, stable: Errors, z: f64) -> f64 {
    let (p, q) = (canary.rate(), stable.rate());
    let (above, below) = (interval(canary, z).1 - p, q - interval(stable, z).0);
    p - q + above.hypot(below)
}

/// The chance of as many errors or more, were each request to fail with the chance `p`. Slightly more than that where the tail is long:
/// it is taken for a geometric one.
pub(super) fn tail(seen: Errors, p: f64) -> f64 {
    let (n, k) = (seen.of as f64, seen.errors.min(seen.of) as f64);
    if k <= n * p || k == 0.0 {
        return 1.0;
    }
    if p <= 0.0 {
        return 0.0;
    }
    let ways = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let exactly = (ways + k * p.ln() + (n - k) * (-p).ln_1p()).exp();
    let ratio = (n - k) / (k + 1.0) * p / (1.0 - p);
    (exactly / (1.0 - ratio)).min(1.0)
}

/// Standard deviations that a normal variable exceeds with the chance `alpha`, which is below one half. Acklam's approximation, whose
/// relative error is below 1.2e-9.
pub(super) fn z(alpha: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let p = alpha.clamp(f64::MIN_POSITIVE, 0.5);
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        return -polynomial(&C, q) / polynomial(&D, q);
    }
    let q = 0.5 - p;
    let r = q * q;
    polynomial(&A, r) * q / polynomial(&B, r)
}

/// The logarithm of the gamma function from 1 on. Lanczos' approximation (g = 7, nine terms), whose relative error is below 1e-14.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let (sum, _) = TERMS.iter().fold((0.999_999_999_999_809_9, x + 1.0), |(sum, at), term| (sum + term / at, at + 1.0));
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{got}, not {expected}");
    }

    #[test]
    fn evidence_is_what_the_formula_gives() {
        // 0.1^-k / (k + 1), and worked examples of the documentation.
        for (canary, stable, e, tolerance) in [
            (0, 0, 1.0, 1e-12),
            (3, 0, 250.0, 1e-9),
            (4, 0, 2_000.0, 1e-9),
            (10, 10, 7_392.0, 1e-4),
            (10, 20, 88.0, 0.01),
            (10, 40, 1.3, 0.05),
        ] {
            near(ln_e(canary, stable, 0.1).exp(), e, tolerance);
        }
        assert_eq!((ln_e(9, 0, 1.0), ln_e(9, 9, 0.0)), (0.0, 0.0), "only one version is asked");
    }

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Newcombe 1998, example (a): 56/70 against 48/80, 95 % two-sided: 0.0524 to 0.3339.
        near(difference_at_most(Errors { errors: 56, of: 70 }, Errors { errors: 48, of: 80 }, z(0.025)), 0.3339, 1e-4);
        // No failure: 7.1 % of 50, 1.26 % of 300, 0.38 % of 1,000.
        for (n, upper) in [(50, 0.0713), (300, 0.0126), (1_000, 0.0038)] {
            near(interval(Errors { errors: 0, of: n }, z(0.025)).1, upper, 1e-4);
        }
        assert_eq!(interval(Errors::default(), 1.96), (0.0, 1.0));
    }

    #[test]
    fn quantiles_and_tails_are_those_of_the_tables() {
        for (alpha, expected) in
            [(0.5, 0.0), (0.1, 1.281_551_566), (0.05, 1.644_853_627), (0.025, 1.959_963_985), (0.001, 3.090_232_306)]
        {
            near(z(alpha), expected, 1e-8);
        }
        // Exactly 0.0034 and 0.00053; the geometric tail is a little more.
        near(tail(Errors { errors: 5, of: 100 }, 0.01), 0.003_43, 1e-4);
        near(tail(Errors { errors: 6, of: 100 }, 0.01), 0.000_534, 1e-5);
        near(tail(Errors { errors: 1, of: 1 }, 0.01), 0.01, 1e-9);
        assert_eq!(tail(Errors { errors: 0, of: 9 }, 0.0), 1.0);
        assert_eq!(tail(Errors { errors: 1, of: 9 }, 0.0), 0.0);
    }

    #[test]
    fn the_gamma_function_is_the_factorial() {
        let mut factorial = 0.0;
        for n in 1..170_u32 {
            near(ln_gamma(f64::from(n)), factorial, 1e-13);
            factorial += f64::from(n).ln();
        }
    }

    proptest! {
        #[test]
        fn no_counts_give_no_number(a: u64, b: u64, c: u64, d: u64, p in 0.0..=1.0_f64, k in 1..1_000_u32) {
            let (canary, stable) = (Errors { errors: a, of: b }, Errors { errors: c, of: d });
            let z = z(0.05 / 2.0_f64.powi(k.try_into().unwrap()));
            prop_assert!(z.is_finite() && z >= 0.0);
            prop_assert!(ln_e(a, c, p).is_finite());
            prop_assert!((0.0..=1.0).contains(&tail(canary, p)));
            prop_assert!((-1.0..=2.5).contains(&difference_at_most(canary, stable, z)));
            let (low, high) = interval(canary, z);
            prop_assert!(low <= canary.rate() + 1e-9 && canary.rate() <= high + 1e-9);
        }

        #[test]
        fn more_errors_of_the_canary_are_more_evidence(canary in 10..1_000_u64, stable in 0..100_u64, share in 0.01..0.5_f64) {
            prop_assume!(canary as f64 > (canary + stable) as f64 * share + 1.0);
            prop_assert!(ln_e(canary + 1, stable, share) > ln_e(canary, stable, share));
        }
    }
}
