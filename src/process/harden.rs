//! What this process does about itself before anything else: keys are in its memory, and programs that it starts are not to inherit what its
//! caller left open or ignored.

use std::fs;
use std::os::fd::IntoRawFd as _;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::signal::unix::{SignalKind, signal};

/// The last of the three descriptors that every program has.
const STREAMS_LAST: i32 = 2;

/// Sees to it that no image of the memory is written, and that nobody but root looks into it.
pub fn keep_memory_secret() {
    // It cannot fail with an argument that the kernel knows.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Sees to it that what the caller left open is open in this process alone. To be called before there is a second thread.
pub fn keep_descriptors() {
    let list = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = list.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let inherited = numbers.into_iter().filter(|number| *number > STREAMS_LAST);
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    for number in inherited {
        // A mark on a number that came from outside takes a second descriptor of the same file, in its place. What is not there any more
        // was the list above.
        let Ok(second) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        if nix::unistd::close(number).is_ok()
            && let Ok(again) = fcntl_dupfd_cloexec(&second, number)
        {
            // Whoever was told the number, as in /dev/fd/63, finds it.
            let _ = again.into_raw_fd();
        }
    }
}

/// Sees to it that programs do not inherit which signals the caller had ignored: one that is handled here is at its default there, and to
/// handle it by doing nothing is to ignore it.
pub fn keep_ignored_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for number in ignored(&status) {
        // Some cannot be handled, and what handles SIGPIPE by itself is the standard library.
        let _ = signal(SignalKind::from_raw(number));
    }
}

/// The signals that proc_pid_status(5) calls ignored.
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
