//! What an answer says of the version that gave it: nothing, that all is well, or that it failed. Envoy's own answers are told
//! from the application's by Envoy's response flags.

use crate::policy::Failure;

/// What an answer says of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the client was wrong (4xx, and gRPC statuses that say the same), or the edge itself would not.
    Nothing,
    Good,
    Failed,
}

/// An answer, as far as it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The gRPC status, if it is an answer of gRPC.
    pub grpc: Option<u16>,
}

/// Envoy's response flags as `response.flags` has them: bits in the order of its `CoreResponseFlag`.
mod flag {
    pub(super) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub(super) const REQUEST_TIMEOUT: u64 = 1 << 2;
    pub(super) const LOCAL_RESET: u64 = 1 << 3;
    pub(super) const REMOTE_RESET: u64 = 1 << 4;
    pub(super) const CONNECTION_FAILURE: u64 = 1 << 5;
    pub(super) const CONNECTION_TERMINATION: u64 = 1 << 6;
    /// Said beside another, or beside an application's answer that was retried in vain.
    pub(super) const RETRY_LIMIT: u64 = 1 << 15;
    pub(super) const IDLE_TIMEOUT: u64 = 1 << 16;
    pub(super) const MAX_STREAM_DURATION: u64 = 1 << 19;
    pub(super) const DURATION_TIMEOUT: u64 = 1 << 22;
    pub(super) const PROTOCOL_ERROR: u64 = 1 << 23;
}

impl Answer {
    /// What it says. `flags` are asked for only if it may be Envoy's own.
    pub fn outcome(self, fail_on: &[Failure], flags: impl FnOnce() -> u64) -> Outcome {
        let grpc = self.grpc.filter(|code| *code != 0);
        if self.status < 500 && grpc.is_none() {
            return if self.status < 400 { Outcome::Good } else { Outcome::Nothing };
        }
        let failed = |kind: Option<Failure>| kind.is_some_and(|kind| fail_on.contains(&kind));
        let by_grpc = grpc.and_then(of_grpc);
        match of_flags(flags()) {
            Who::Edge => return Outcome::Nothing,
            Who::Network(kind) if failed(Some(kind)) => return Outcome::Failed,
            Who::Application if self.status >= 500 && failed(Some(Failure::ServerError)) => return Outcome::Failed,
            Who::Network(_) | Who::Application => {}
        }
        match grpc {
            _ if failed(by_grpc) => Outcome::Failed,
            Some(code) if is_clients_fault(code) => Outcome::Nothing,
            _ => Outcome::Good,
        }
    }
}

/// Who answered.
enum Who {
    Application,
    /// Envoy, for lack of the application's answer.
    Network(Failure),
    /// Envoy, for reasons of its own: a limit, no route, a client that left.
    Edge,
}

fn of_flags(flags: u64) -> Who {
    let flags = flags & !flag::RETRY_LIMIT;
    let any = |of: u64| flags & of != 0;
    if flags == 0 {
        Who::Application
    } else if any(flag::CONNECTION_FAILURE | flag::NO_HEALTHY_UPSTREAM) {
        Who::Network(Failure::ConnectFailure)
    } else if any(flag::REQUEST_TIMEOUT | flag::IDLE_TIMEOUT | flag::MAX_STREAM_DURATION | flag::DURATION_TIMEOUT) {
        Who::Network(Failure::Timeout)
    } else if any(flag::REMOTE_RESET | flag::CONNECTION_TERMINATION | flag::PROTOCOL_ERROR | flag::LOCAL_RESET) {
        Who::Network(Failure::Reset)
    } else {
        Who::Edge
    }
}

fn of_grpc(code: u16) -> Option<Failure> {
    match code {
        2 => Some(Failure::Unknown),
        4 => Some(Failure::DeadlineExceeded),
        13 => Some(Failure::Internal),
        14 => Some(Failure::Unavailable),
        _ => None,
    }
}

/// Cancelled, invalid argument, not found, already exists, permission denied, failed precondition, aborted, out of range,
/// unauthenticated; and resource exhausted, gRPC's 429.
fn is_clients_fault(code: u16) -> bool {
    matches!(code, 1 | 3 | 5..=11 | 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Failure; 8] = [
        Failure::ServerError,
        Failure::Reset,
        Failure::ConnectFailure,
        Failure::Timeout,
        Failure::Unavailable,
        Failure::Internal,
        Failure::Unknown,
        Failure::DeadlineExceeded,
    ];

    fn outcome(status: u16, grpc: Option<u16>, flags: u64, fail_on: &[Failure]) -> Outcome {
        Answer { status, grpc }.outcome(fail_on, || flags)
    }

    #[test]
    fn an_application_fails_by_its_status() {
        for (status, expected) in [
            (200, Outcome::Good),
            (302, Outcome::Good),
            (404, Outcome::Nothing),
            (429, Outcome::Nothing),
            (500, Outcome::Failed),
            (503, Outcome::Failed),
        ] {
            assert_eq!(outcome(status, None, 0, &ALL), expected, "{status}");
        }
        assert_eq!(outcome(500, None, 0, &[Failure::Reset]), Outcome::Good, "as it is told");
        assert_eq!(outcome(500, None, flag::RETRY_LIMIT, &ALL[..1]), Outcome::Failed, "retried in vain");
        let unasked = Answer { status: 404, grpc: Some(0) }.outcome(&ALL, || panic!("asked for the flags"));
        assert_eq!(unasked, Outcome::Nothing);
    }

    #[test]
    fn what_envoy_answers_is_told_from_what_the_application_does() {
        let kinds = [
            (flag::CONNECTION_FAILURE | flag::RETRY_LIMIT, Failure::ConnectFailure),
            (flag::NO_HEALTHY_UPSTREAM, Failure::ConnectFailure),
            (flag::REQUEST_TIMEOUT, Failure::Timeout),
            (flag::REMOTE_RESET, Failure::Reset),
            (flag::CONNECTION_TERMINATION, Failure::Reset),
        ];
        for (flags, kind) in kinds {
            assert_eq!(outcome(503, None, flags, &[kind]), Outcome::Failed, "{kind:?}");
            assert_eq!(outcome(503, None, flags, &[Failure::ServerError]), Outcome::Good, "{kind:?} is no 5xx");
        }
        // Overflow of a circuit breaker, no route, a client that left.
        for edge in [1 << 7, 1 << 8, 1 << 14] {
            assert_eq!(outcome(503, None, edge, &ALL), Outcome::Nothing, "{edge:b}");
        }
    }

    #[test]
    fn grpc_fails_by_its_own_status() {
        assert_eq!(outcome(200, Some(0), 0, &ALL), Outcome::Good);
        for (code, kind) in
            [(2, Failure::Unknown), (4, Failure::DeadlineExceeded), (13, Failure::Internal), (14, Failure::Unavailable)]
        {
            assert_eq!(outcome(200, Some(code), 0, &[kind]), Outcome::Failed, "{code}");
            assert_eq!(outcome(200, Some(code), 0, &[Failure::ServerError]), Outcome::Good, "{code}");
        }
        for code in [1, 3, 5, 6, 7, 8, 9, 10, 11, 16] {
            assert_eq!(outcome(200, Some(code), 0, &ALL), Outcome::Nothing, "{code}");
        }
        // Envoy's own answer to a gRPC client.
        assert_eq!(outcome(200, Some(14), flag::CONNECTION_FAILURE, &[Failure::ConnectFailure]), Outcome::Failed);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(status: u16, grpc: Option<u16>, flags: u64) {
            let _ = outcome(status, grpc, flags, &ALL);
        }
    }
}
