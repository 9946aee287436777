//! Progress: a bar on a terminal, a line now and then elsewhere, nothing with `--json` or `-q`.
//!
//! A thread of its own reads the job's numbers, so that the display goes on when every worker of the runtime is busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal;
use super::units::{bytes, counted, duration};
use crate::env::Clock;
use crate::job::node::progress::{JobPhase, JobProgress};

/// How often the bar is drawn: smooth for the eye, cheap for the CPU.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How often a line is written without a terminal: a long run shows that it lives, and a log stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Number of samples for the rate: 10 s of drawing.
const RATE_LOOKS: usize = 50;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressMode {
    /// A bar.
    Bar,
    /// A line every `LINE_INTERVAL`.
    Lines,
    /// No progress is shown.
    Silent,
}

/// The mode for this standard error.
pub fn mode(json: bool, quiet: bool, terminal: bool) -> ProgressMode {
    match (json || quiet, terminal) {
        (true, _) => ProgressMode::Silent,
        (false, true) => ProgressMode::Bar,
        (false, false) => ProgressMode::Lines,
    }
}

/// The bars of a process, drawn on standard error.
pub fn bars(style: ProgressMode) -> MultiProgress {
    MultiProgress::with_draw_target(match style {
        ProgressMode::Bar => ProgressDrawTarget::stderr(),
        ProgressMode::Lines | ProgressMode::Silent => ProgressDrawTarget::hidden(),
    })
}

/// Shows a job's progress until it is dropped.
#[derive(Debug)]
pub struct ProgressDisplay {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressDisplay {
    /// Starts to show `progress` as that of `label`.
    pub fn start(
        label: String,
        progress: Arc<JobProgress>,
        style: ProgressMode,
        bars: &MultiProgress,
        clock: Arc<dyn Clock>,
    ) -> Self {
        if style == ProgressMode::Silent {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let bars = bars.clone();
        let thread = std::thread::spawn(move || match style {
            ProgressMode::Bar => draw(&label, &progress, &bars, &*clock, &stopped),
            ProgressMode::Lines | ProgressMode::Silent => write(&label, &progress, &*clock, &stopped),
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A display that panicked says nothing about the job.
            let _ = thread.join();
        }
    }
}

/// Whether `interval` passed without a message from the owner.
fn wait_interval(stopped: &mpsc::Receiver<()>, interval: Duration) -> bool {
    stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout)
}

fn draw(label: &str, progress: &JobProgress, bars: &MultiProgress, clock: &dyn Clock, stopped: &mpsc::Receiver<()>) {
    let template = |text| ProgressStyle::with_template(text).expect("the template is a constant and a test draws it");
    let (spinner, with_total) = (template(SPINNER), template(BAR));
    let bar = bars.add(ProgressBar::new(0).with_prefix(label.to_owned()).with_style(spinner.clone()));
    let mut meter = RateMeter::default();
    while wait_interval(stopped, DRAW_INTERVAL) {
        let now = sample(progress);
        let rate = meter.rate(clock.boottime(), &now);
        let columns = terminal::error_columns();
        let room = columns.saturating_sub(label.chars().count() + SPINNER_COLUMNS);
        let has_bar = now.has_end() && columns >= BAR_COLUMNS_MIN;
        let room = if has_bar { room.saturating_sub(BAR_COLUMNS) } else { room };
        // Each of these may draw, so the message comes first: it fits into the smallest room.
        bar.set_message(line(&now, rate, room));
        bar.set_length(now.bytes_total);
        bar.set_position(now.bytes_done.min(now.bytes_total));
        bar.set_style(if has_bar { with_total.clone() } else { spinner.clone() });
        bar.tick();
    }
    bar.finish_and_clear();
    bars.remove(&bar);
}

const SPINNER: &str = "{spinner} {prefix}: {wide_msg}";
const BAR: &str = "{spinner} {prefix}: [{bar:16}] {wide_msg}";

/// The columns of a spinner's line beside label and message, and the last column, into which some terminals do not
/// write without a new line.
const SPINNER_COLUMNS: usize = 5;

/// The additional columns of a bar.
const BAR_COLUMNS: usize = 19;

/// The narrowest terminal with a bar: on narrower ones the numbers are more useful.
const BAR_COLUMNS_MIN: usize = 60;

fn write(label: &str, progress: &JobProgress, clock: &dyn Clock, stopped: &mpsc::Receiver<()>) {
    let mut meter = RateMeter::default();
    meter.rate(clock.boottime(), &sample(progress));
    while wait_interval(stopped, LINE_INTERVAL) {
        let now = sample(progress);
        let rate = meter.rate(clock.boottime(), &now);
        terminal::write_error(&format!("{label}: {}\n", line(&now, rate, usize::MAX)));
    }
}

/// The values of [`JobProgress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ProgressSample {
    phase: JobPhase,
    files: u64,
    bytes_done: u64,
    bytes_total: u64,
    /// Whether the total still grows.
    is_counting: bool,
    bytes_uploaded: u64,
}

impl ProgressSample {
    /// Whether the total is known.
    fn has_end(&self) -> bool {
        let counts = matches!(self.phase, JobPhase::Backup | JobPhase::Restore | JobPhase::Verify);
        counts && self.bytes_total > 0 && !self.is_counting
    }
}

fn sample(progress: &JobProgress) -> ProgressSample {
    ProgressSample {
        phase: progress.phase(),
        files: progress.files.load(Relaxed),
        bytes_done: progress.bytes_read.load(Relaxed),
        bytes_total: progress.total_bytes.load(Relaxed),
        is_counting: progress.total_grows.load(Relaxed),
        bytes_uploaded: progress.bytes_uploaded.load(Relaxed),
    }
}

/// The rate over the last samples of one phase: time spent waiting before the phase does not count.
#[derive(Debug, Default)]
struct RateMeter {
    phase: JobPhase,
    looks: VecDeque<(Duration, u64)>,
}

impl RateMeter {
    /// Adds a sample; returns the bytes per second since the oldest one that is kept.
    fn rate(&mut self, at: Duration, now: &ProgressSample) -> u64 {
        if self.phase != now.phase {
            self.phase = now.phase;
            self.looks.clear();
        }
        if self.looks.len() == RATE_LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((at, now.bytes_done));
        let (then, before) = self.looks[0];
        let span = at.saturating_sub(then).as_secs_f64();
        if span > 0.0 { (now.bytes_done.saturating_sub(before) as f64 / span) as u64 } else { 0 }
    }
}

/// The numbers in words, in at most `columns` columns: the least important parts are left out first, and nothing is
/// cut.
fn line(now: &ProgressSample, rate: u64, columns: usize) -> String {
    let waits = match now.phase {
        JobPhase::Opening => Some(["opening the repository", "opening"]),
        JobPhase::Lease => Some(["waiting for the lease", "waiting for the lease"]),
        JobPhase::Turn => Some(["leaving the slot to the node that had the role last", "waiting for its turn"]),
        JobPhase::Commit => Some(["committing", "committing"]),
        JobPhase::Done => Some(["done", "done"]),
        JobPhase::Prune => Some(["pruning", "pruning"]),
        JobPhase::Backup | JobPhase::Restore | JobPhase::Verify | JobPhase::List => None,
    };
    if let Some([long, short]) = waits {
        return if long.len() <= columns { long } else { short }.to_owned();
    }
    if now.phase == JobPhase::List {
        let objects = counted(now.files, "object", "objects");
        let long = format!("{objects}, {}", bytes(now.bytes_done));
        return if long.len() <= columns { long } else { objects };
    }
    let files = counted(now.files, "file", "files");
    let content = match (now.bytes_total, now.is_counting) {
        (0, _) => bytes(now.bytes_done),
        (total, true) => format!("{} of {} so far", bytes(now.bytes_done), bytes(total)),
        (total, false) => format!("{} of {}", bytes(now.bytes_done), bytes(total)),
    };
    let uploaded = format!("{} uploaded", bytes(now.bytes_uploaded));
    let rate_text = format!("{}/s", bytes(rate));
    let rest = now.bytes_total.saturating_sub(now.bytes_done);
    let left = (rest > 0 && rate > 0 && !now.is_counting).then(|| {
        // Whole seconds: tenths would only flicker.
        let left = Duration::from_secs((rest / rate).max(1));
        let left = if left.as_secs() < 10 { format!("{} s", left.as_secs()) } else { duration(left) };
        format!("{left} left")
    });
    let (files, uploaded) =
        ((now.phase != JobPhase::Verify).then_some(files), (now.phase == JobPhase::Backup).then_some(uploaded));
    let done = bytes(now.bytes_done);
    let [files, uploaded, left] = [&files, &uploaded, &left].map(Option::as_deref);
    let (content, rate) = (Some(content.as_str()), Some(rate_text.as_str()));
    let forms = [
        [files, content, uploaded, rate, left],
        [None, content, uploaded, rate, left],
        [None, content, None, rate, left],
        [None, content, None, None, left],
        [None, content, None, None, None],
    ];
    let texts = forms.iter().map(|form| form.iter().flatten().copied().collect::<Vec<_>>().join(", "));
    texts.into_iter().find(|text| text.len() <= columns).unwrap_or(done)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn json_and_quiet_are_silent_and_a_pipe_gets_lines() {
        assert_eq!(mode(false, false, true), ProgressMode::Bar);
        assert_eq!(mode(false, false, false), ProgressMode::Lines);
        for terminal in [true, false] {
            assert_eq!(
                (mode(true, false, terminal), mode(false, true, terminal)),
                (ProgressMode::Silent, ProgressMode::Silent)
            );
        }
    }

    #[test]
    fn lines_say_what_is_known() {
        let now = ProgressSample {
            phase: JobPhase::Backup,
            files: 12_345,
            bytes_done: 1 << 30,
            bytes_total: 0,
            is_counting: false,
            bytes_uploaded: 300 << 20,
        };
        let wide = |now: &ProgressSample, rate| line(now, rate, usize::MAX);
        assert_eq!(wide(&now, 45 << 20), "12,345 files, 1.0 GiB, 300 MiB uploaded, 45.0 MiB/s");
        let restore = ProgressSample { phase: JobPhase::Restore, bytes_total: 4 << 30, ..now };
        assert_eq!(wide(&restore, 45 << 20), "12,345 files, 1.0 GiB of 4.0 GiB, 45.0 MiB/s, 1 min 08 s left");
        assert_eq!(wide(&ProgressSample { phase: JobPhase::Verify, ..restore }, 0), "1.0 GiB of 4.0 GiB, 0 B/s");
        let list = ProgressSample { phase: JobPhase::List, ..now };
        assert_eq!([wide(&list, 1), line(&list, 1, 20)], ["12,345 objects, 1.0 GiB", "12,345 objects"]);
        assert_eq!(wide(&ProgressSample::default(), 0), "opening the repository");
        assert_eq!(wide(&ProgressSample { phase: JobPhase::Lease, ..now }, 0), "waiting for the lease");
        let counting = ProgressSample { bytes_total: 2 << 30, is_counting: true, ..now };
        assert!(wide(&counting, 45 << 20).contains("1.0 GiB of 2.0 GiB so far"), "nothing is left of what grows");
        assert!(!wide(&counting, 45 << 20).contains("left") && !counting.has_end());
    }

    #[test]
    fn a_narrow_line_says_less_and_is_not_cut() {
        let now = ProgressSample {
            phase: JobPhase::Backup,
            files: 12_345_678,
            bytes_done: 1000 << 30,
            bytes_total: 4000 << 30,
            is_counting: false,
            bytes_uploaded: 300 << 30,
        };
        let shown: Vec<String> = [80, 56, 40, 33, 22, 12].map(|columns| line(&now, 45 << 20, columns)).into();
        insta::assert_snapshot!(shown.join("\n"));
        for columns in 12..100 {
            assert!(line(&now, 45 << 20, columns).len() <= columns.max(20), "{columns}");
        }
    }

    #[test]
    fn the_rate_forgets_how_it_began_and_what_was_waited_for() {
        let mut meter = RateMeter::default();
        let at = |phase, bytes_done| ProgressSample { phase, bytes_done, ..ProgressSample::default() };
        assert_eq!(meter.rate(Duration::ZERO, &at(JobPhase::Lease, 0)), 0);
        assert_eq!(meter.rate(Duration::from_secs(50), &at(JobPhase::Lease, 0)), 0);
        assert_eq!(meter.rate(Duration::from_secs(51), &at(JobPhase::Backup, 0)), 0);
        assert_eq!(meter.rate(Duration::from_secs(53), &at(JobPhase::Backup, 200)), 100);
        for second in 64..=300 {
            meter.rate(Duration::from_secs(second), &at(JobPhase::Backup, 200));
        }
        assert_eq!(meter.rate(Duration::from_secs(301), &at(JobPhase::Backup, 200)), 0, "it stands still");
        assert_eq!(meter.looks.len(), RATE_LOOKS);
    }

    /// A terminal that remembers the last text that was written to it.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<parking_lot::Mutex<String>>);

    impl indicatif::TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_is_drawn_and_goes_away() {
        let screen = Screen::default();
        let shown = || screen.0.lock().clone();
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let progress = Arc::new(JobProgress::default());
        progress.enter(JobPhase::Restore);
        progress.total_bytes.store(200, Relaxed);
        progress.bytes_read.store(100, Relaxed);
        let clock = Arc::new(crate::env::HostClock);
        let display = ProgressDisplay::start("app".to_owned(), progress, ProgressMode::Bar, &bars, clock);
        while !shown().contains("100 B of 200 B") {
            std::thread::sleep(DRAW_INTERVAL);
        }
        assert!(shown().contains("app: [████████░"), "{}", shown());
        drop(display);
        assert_eq!(shown(), "");
    }
}
