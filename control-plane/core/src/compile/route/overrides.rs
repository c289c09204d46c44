//! Clients that say themselves which version they want, as header matches of Envoy's: the filter has no part in it, and neither
//! weights nor breakers have. What says nothing, or not the right thing, is ignored.

use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use tidegate_filter_core::RouteKind;

use crate::config::canary::{HeaderOverride, Overrides, Wanted};

/// What wants stable, and what the canary.
const NEVER: &str = "never";
const ALWAYS: &str = "always";

/// In order of precedence. Where a client says both, it gets stable.
pub(super) fn of(overrides: &Overrides) -> Vec<(HeaderMatcher, RouteKind)> {
    let mut all = Vec::new();
    if let Some(HeaderOverride { name, wanted }) = &overrides.header {
        match wanted {
            Wanted::AlwaysNever => {
                all.push((exactly(name, NEVER), RouteKind::Stable));
                all.push((exactly(name, ALWAYS), RouteKind::Canary));
            }
            Wanted::Value(value) => all.push((exactly(name, value), RouteKind::Canary)),
            Wanted::Pattern(pattern) => all.push((matching(name, pattern), RouteKind::Canary)),
        }
    }
    if let Some(name) = &overrides.cookie {
        all.push((matching("cookie", &cookie(name, NEVER)), RouteKind::Stable));
        all.push((matching("cookie", &cookie(name, ALWAYS)), RouteKind::Canary));
    }
    all
}

pub(super) fn exactly(name: &str, value: &str) -> HeaderMatcher {
    matcher(name, MatchPattern::Exact(value.to_owned()))
}

/// By a regular expression (RE2) that the whole value matches.
pub(super) fn matching(name: &str, regex: &str) -> HeaderMatcher {
    matcher(name, MatchPattern::SafeRegex(RegexMatcher { regex: regex.to_owned(), ..RegexMatcher::default() }))
}

fn matcher(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    }
}

/// A `cookie` header in which some cookie of this name has this value.
fn cookie(name: &str, value: &str) -> String {
    let literal: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.into() } else { format!("\\{c}") }).collect();
    format!("(?:.*;)?\\s*{literal}=\"?{value}\"?\\s*(?:;.*)?")
}
