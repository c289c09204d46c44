//! SIGTERM and SIGINT, received by waiting for them. Std has no signal API, so this module declares the four libc
//! functions that std is linked with anyway; only this and `backlog` have unsafe code. No handler runs: the signals are
//! blocked and `sigwait`ed for, which also works as PID 1, where the kernel drops signals at their default disposition.

#![allow(unsafe_code, reason = "std has no signal API, and this program has no dependencies")]

use std::ffi::c_int;

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// Linux's `sigset_t` in glibc and musl alike: 1024 bits.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
}

/// The blocked termination signals.
pub(crate) struct Termination(SignalSet);

impl Termination {
    /// Blocks SIGTERM and SIGINT for the calling thread and every thread that it starts from now on.
    pub(crate) fn block() -> Self {
        let mut set = SignalSet([0; 128]);
        // SAFETY: `set` is as large and as aligned as libc's type, lives through the calls, and `old` may be null.
        unsafe {
            sigemptyset(&raw mut set);
            sigaddset(&raw mut set, SIGINT);
            sigaddset(&raw mut set, SIGTERM);
            pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        Self(set)
    }

    /// Waits for the next of them and returns its number.
    pub(crate) fn wait(&self) -> u8 {
        let mut signal: c_int = 0;
        loop {
            // SAFETY: both pointers are valid for the call, and the set was initialised in `block`.
            let result = unsafe { sigwait(&raw const self.0, &raw mut signal) };
            if result == 0
                && let Ok(signal) = u8::try_from(signal)
            {
                return signal;
            }
        }
    }
}
