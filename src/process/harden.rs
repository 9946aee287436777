//! Protects this process at its start: its memory contains keys, and programs that it starts must not inherit open
//! descriptors or ignored signals of its caller.

use std::fs;
use std::os::fd::IntoRawFd as _;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};

/// The last of the three descriptors that every program has.
const STREAMS_LAST: i32 = 2;

/// Disables core dumps, and denies other users than root access to the memory.
pub fn keep_memory_secret() {
    // Cannot fail with an argument that the kernel knows.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Makes the descriptors that the caller left open close in started programs. To be called before there is a second
/// thread.
pub fn keep_descriptors() {
    let list = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = list.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let inherited = numbers.into_iter().filter(|number| *number > STREAMS_LAST);
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    for number in inherited {
        // A flag on a descriptor number from outside needs a second descriptor of the same file, in its place. A number
        // that is gone was the list above.
        let Ok(second) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        if nix::unistd::close(number).is_ok()
            && let Ok(again) = fcntl_dupfd_cloexec(&second, number)
        {
            // The number stays valid for arguments such as /dev/fd/63.
            let _ = again.into_raw_fd();
        }
    }
}

/// Prevents programs from inheriting the caller's ignored signals: a signal that is handled here has its default action
/// there, and a handler that does nothing has the effect of ignoring it.
pub fn keep_ignored_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for number in ignored(&status) {
        // Some cannot be handled, and the standard library handles SIGPIPE by itself.
        let _ = signal(SignalKind::from_raw(number));
    }
}

/// The signals that are ignored according to proc_pid_status(5).
fn ignored(status: &str) -> impl Iterator<Item = i32> {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let mask = mask.unwrap_or_default();
    (1..=i64::BITS as i32).filter(move |number| (mask >> (number - 1)) & 1 == 1 && *number != nix::libc::SIGPIPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let of = |status: &str| ignored(status).collect::<Vec<_>>();
        assert_eq!(
            of("Name:\trunner\nSigIgn:\t0000000000001007\nSigCgt:\tff\n"),
            [1, 2, 3],
            "and SIGPIPE, which is not ours"
        );
        assert_eq!(of("Name:\trunner\n"), [0; 0]);
    }
}
