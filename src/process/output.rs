//! Logs the output of a command.

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::text;

/// The most lines of one stream that are logged, and the most of one line, in bytes.
const LINES_MAX: usize = 1000;
const LINE_MAX: usize = 1000;

/// Logs a stream line by line, each after `label`; `moved` is called for everything that arrives. Output beyond the
/// limits is still read, so that the command never blocks on a full pipe.
pub fn log_lines(
    mut stream: impl AsyncRead + Unpin + Send + 'static,
    label: String,
    moved: impl Fn() + Send + 'static,
) -> JoinHandle<()> {
    let work = async move {
        let (mut line, mut lines, mut buffer) = (Vec::new(), 0, [0; 4096]);
        let mut flush = |line: &mut Vec<u8>| {
            lines += 1;
            match lines {
                ..=LINES_MAX => tracing::info!("{label}: {}", text::line(&String::from_utf8_lossy(line))),
                _ if lines == LINES_MAX + 1 => tracing::info!("{label}: more lines follow, which are not logged"),
                _ => {}
            }
            line.clear();
        };
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            moved();
            for byte in &buffer[..count] {
                match byte {
                    b'\n' => flush(&mut line),
                    byte if line.len() < LINE_MAX => line.push(*byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            flush(&mut line);
        }
    };
    // The lines have the fields of the run that started the command.
    tokio::spawn(work.in_current_span())
}
