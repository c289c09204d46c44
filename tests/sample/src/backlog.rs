//! How many connections may wait to be accepted. Std asks for 128, fewer than an ordinary server: when many clients come at once
//! the kernel drops the others, who try again a second later. One libc function more, with which std is linked anyway.

#![allow(unsafe_code, reason = "std has no such API, and this program has no dependencies")]

use std::{ffi::c_int, net::TcpListener, os::fd::AsRawFd};

/// As many as Linux allows by default.
const ROOM: c_int = 4096;

unsafe extern "C" {
    fn listen(socket: c_int, backlog: c_int) -> c_int;
}

/// Makes room, as far as the kernel gives it.
pub(crate) fn widen(listener: &TcpListener) {
    // SAFETY: the descriptor is open for the call; to listen again changes the room alone.
    unsafe {
        listen(listener.as_raw_fd(), ROOM);
    }
}
