//! The filter as Envoy runs it: proxy-wasm glue around `tidegate-filter-core`. It hands the core a request's facts and
//! carries its decision out; it decides nothing itself. Of a request it remembers what its answer needs: whose it is, and when it came.
//!
//! Whatever panics here ends the wasm VM of one worker: until the control plane heals it, that worker serves plain xDS,
//! with the right weights and without stickiness. Hence the lints, and hence the care about proxy-wasm 0.2.5, which
//! panics on every host status it does not expect: `Context`'s methods unwrap even those that `hostcalls` returns as
//! errors. So only `hostcalls` is called here, and only this, each call in a phase where Envoy 1.40 answers Ok or
//! NotFound:
//!
//! | call | what would panic |
//! |---|---|
//! | `get_map_value_bytes`, `set_map_value_bytes`, `add_map_value_bytes` | `BadArgument`, outside the phase of those headers or trailers |
//! | `get_map_value` (never called) | any client, by a value that is not UTF-8 |
//! | `get_property` | nothing Envoy answers: `NotFound`, `SerializationFailure`, `InternalFailure` are values |
//! | `send_http_response`, `set_tick_period`, `define_metric`, `log` | `BadArgument`, on arguments never passed here |
//! | `set_effective_context` | nothing Envoy answers: `BadArgument`, for a context that is gone, is a value |
//! | `resume_http_request` | `BadArgument`, outside a request |
//! | `increment_metric` | nothing Envoy answers: `NotFound` and `BadArgument` are values |
//! | `record_metric` | `BadArgument`, of a metric that is a counter |
//! | `get_current_time` | nothing Envoy answers |
//! | `get_shared_data`, `set_shared_data` | nothing Envoy answers: `NotFound` and `CasMismatch` are values |
//! | `dispatch_http_call` | nothing Envoy answers: `BadArgument` (no such cluster) and `InternalFailure` (no endpoint) are values |
//! | what that call's answer meets in proxy-wasm | a token that it has not seen: so the callback has to be allowed, and does nothing |
//! | `random_get` (WASI, by `getrandom`) | nothing: its errors are values |
//! | any call that `capability_restriction_config` does not allow | `InternalFailure`: what is used must be allowed |

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answer;
mod breaker;
mod counters;
mod figures;
mod heartbeat;
mod host;
mod parked;
mod request;
mod root;

// The macro exports the module's entry point, which the lint counts as unsafe code.
#[allow(unsafe_code)]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
        proxy_wasm::set_root_context(|id| Box::new(crate::root::Root::new(id)));
    }}
}
