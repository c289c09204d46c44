//! Problems: the only way tidegate reports what is wrong with input. A problem has a code, a subject, a reason, an effect
//! and a cure, and never stops anything but its subject.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $title:literal;)*) => {
        /// What kind of problem it is. The texts (`TG0103`) are stable: others search for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text, such as `TG0103`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// One line that says what the code stands for.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// A label's value cannot be used.
    InvalidLabel = "TG0101", "a label's value cannot be used";
    /// No port, or several and none named.
    UnclearPort = "TG0102", "the port of a container is not clear";
    /// A `tidegate.*` label that does not exist.
    UnknownLabel = "TG0103", "a label that does not exist";
    /// Several networks and no rule that chooses one.
    AmbiguousNetwork = "TG0104", "several networks, and no rule that chooses one";
    /// The container has no address that Envoy could use.
    NoAddress = "TG0105", "a container without an address that Envoy can use";
    /// More or larger labels than the limits allow.
    LabelLimit = "TG0106", "more or larger labels than allowed";
    /// Labels without `tidegate.enable`.
    NotEnabled = "TG0107", "tidegate labels on a container that is not enabled";
    /// Labels of one container that contradict each other.
    LabelConflict = "TG0108", "labels that contradict each other";
    /// A container that Compose runs for a command or a hook.
    LeftOut = "TG0109", "a container that Compose runs for a moment";
    /// The Docker engine does not answer.
    DockerUnreachable = "TG0110", "the Docker engine does not answer";
    /// One container could not be inspected; what was known of it stays.
    InspectFailed = "TG0111", "a container could not be inspected";
    /// What is known of an engine's containers was not confirmed for a while; it stays.
    StaleView = "TG0112", "the view of a Docker engine is stale";
    /// An engine that is not on this machine is asked in plain text.
    PlainEngine = "TG0113", "a Docker engine is asked in plain text";
    /// Two engines of the configuration show the same containers.
    TwinEngines = "TG0114", "two Docker engines are one";
    /// A file of instances, or their directory, cannot be read; what was known of it stays.
    UnreadableInstances = "TG0120", "instances that cannot be read";
    /// A file that is no list of instances; what was known of it stays.
    InvalidInstances = "TG0121", "a file that is no list of instances";
    /// An entry of a file says what it cannot.
    InvalidEntry = "TG0122", "an entry that cannot be used";
    /// The same service, version and address stand in another entry.
    DuplicateEntry = "TG0123", "an entry that stands twice";
    /// The host and path belong to another service.
    HostClaimed = "TG0201", "a host and path that another service has";
    /// A container disagrees with its service.
    Disagreement = "TG0202", "a container that disagrees with its service";
    /// A service that no route leads to.
    NoHost = "TG0203", "a service without a host";
    /// Labels that a container has from its image, which nobody trusts.
    ImageLabels = "TG0204", "labels that come from the image";
    /// A label that is named like a secret.
    SecretLabel = "TG0205", "a label that is named like a secret";
    /// A host that the configuration does not let this container claim.
    HostRefused = "TG0206", "a host that its owner may not claim";
    /// Containers of a service that want its requests handled differently.
    SettingsDiffer = "TG0207", "containers that want different settings";
    /// Containers say that their version is a canary, and it is none for that.
    IdleCanaryLabel = "TG0208", "a canary label without effect";
    /// An instance that is not ready for a reason its owner can mend.
    NotReady = "TG0210", "an instance is not ready";
    /// A service without any ready instance.
    NoReadyInstance = "TG0211", "a service without a ready instance";
    /// A version that the configuration gives nothing.
    Unrouted = "TG0212", "a version that the configuration gives no traffic";
    /// A container that is ready and not ready in turns.
    Flapping = "TG0213", "a container that falls again and again";
    /// What is published cannot be written to disk; serving goes on.
    NotKept = "TG0301", "the last known good cannot be written";
    /// What was kept on disk cannot be used; the start goes on without.
    UnusableKept = "TG0302", "the last known good cannot be used";
    /// Envoy gets what was kept on disk, until discovery has synced.
    ServingKept = "TG0303", "the last known good is served";
    /// Another control plane has the state directory, or it cannot be locked.
    StateInUse = "TG0304", "the state directory cannot be had";
    /// What operators ask for cannot be kept, or not be read.
    OperatorState = "TG0305", "what operators ask for cannot be kept";
    /// Rollouts cannot be kept, or what was kept of them not be read.
    RolloutState = "TG0306", "the rollouts cannot be kept";
    /// The configuration is invalid; the last valid one stays.
    InvalidConfig = "TG0401", "the configuration is invalid";
    /// The configuration cannot be read; the last valid one stays.
    UnreadableConfig = "TG0402", "the configuration cannot be read";
    /// The configuration names something that does not exist (yet).
    UnknownReference = "TG0403", "the configuration names what does not exist";
    /// A change that only a restart puts in force.
    RestartNeeded = "TG0404", "a change that only a restart puts in force";
    /// Envoy refused a resource; its last accepted version stays.
    ResourceRejected = "TG0501", "Envoy refused a resource";
    /// No Envoy is connected.
    NoEnvoy = "TG0502", "no Envoy is connected";
    /// Envoy cannot be found, started, or is of another version.
    EnvoyUnusable = "TG0503", "Envoy cannot be used";
    /// An address is in use.
    AddressInUse = "TG0504", "an address is in use";
    /// A certificate, key or client CA cannot be used, or is missing.
    UnusableCertificate = "TG0505", "a certificate cannot be used";
    /// xDS is served, or would be, to whoever can reach it.
    OpenXds = "TG0506", "xDS asks nobody who is calling";
    /// The filter crashed in an Envoy; traffic goes on unsticky until it has healed.
    FilterCrashed = "TG0601", "the filter crashed";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().find(|code| code.as_str() == text);
        known.copied().ok_or_else(|| D::Error::custom(format!("there is no problem code {text:?}")))
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The subject gets no traffic, or what was asked for is not in force.
    Error,
    /// It works, but not as well as it should.
    Warning,
    /// Worth knowing.
    Notice,
}

/// A finding about one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is.
    pub code: Code,
    /// What it is about: `container shop-1 (3f9c1a2b77d0)`, `service shop`, `tidegate.yaml:4:3`.
    pub subject: String,
    /// What is wrong.
    pub reason: String,
    /// What follows from it.
    pub effect: String,
    /// What to do about it.
    pub cure: String,
}

impl Problem {
    /// An error. Texts that may hold foreign bytes (label values, Envoy's words) are escaped here, once, so that no
    /// control character reaches a terminal.
    #[must_use]
    pub fn error(
        code: Code,
        subject: impl AsRef<str>,
        reason: impl AsRef<str>,
        effect: impl AsRef<str>,
        cure: impl AsRef<str>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            subject: printable(subject.as_ref()),
            reason: printable(reason.as_ref()),
            effect: printable(effect.as_ref()),
            cure: printable(cure.as_ref()),
        }
    }

    /// The same finding, as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same finding, as a notice.
    #[must_use]
    pub fn notice(mut self) -> Self {
        self.severity = Severity::Notice;
        self
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}: {}", self.severity, self.code, self.subject, self.reason)?;
        if !self.effect.is_empty() {
            write!(f, "\n  effect: {}", self.effect)?;
        }
        if !self.cure.is_empty() {
            write!(f, "\n  help: {}", self.cure)?;
        }
        Ok(())
    }
}

/// `text` with control characters, and those that are not seen or turn its direction, escaped. Line feeds stay: Envoy's messages have them.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let formatting = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c == '\n' || !(c.is_control() || formatting) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_never_reach_a_terminal() {
        let problem = Problem::error(Code::InvalidLabel, "c \u{1b}[2J", "\u{202e}x\0", "", "");
        assert_eq!(problem.to_string(), r"error[TG0101]: c \u{1b}[2J: \u{202e}x\u{0}");
    }

    #[test]
    fn codes_are_unique() {
        let mut seen: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), Code::ALL.len());
    }
}
