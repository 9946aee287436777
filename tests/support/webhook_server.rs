//! A server that is told things over HTTP and remembers them: real requests over a real socket, answered as the test says.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// One request, as `METHOD /path`, and its body.
pub type ReceivedRequest = (String, String);

/// Listens until the test's process ends.
#[derive(Debug)]
pub struct WebhookServer {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
}

impl WebhookServer {
    /// Answers with these statuses, one after the other, then 200.
    pub fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        let heard: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let (remember, mut answers) = (Arc::clone(&heard), answers.iter().copied().collect::<VecDeque<_>>());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = serve(stream, answers.pop_front().unwrap_or(200)) {
                    remember.lock().push(request);
                }
            }
        });
        Self { url, received: heard }
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<ReceivedRequest> {
        self.received.lock().clone()
    }
}

fn serve(stream: TcpStream, status: u16) -> Option<ReceivedRequest> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let words = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.into_inner().write_all(answer.as_bytes()).ok()?;
    Some((words, String::from_utf8_lossy(&body).into_owned()))
}
