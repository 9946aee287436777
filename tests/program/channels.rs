//! `[[notify.channel]]`: services over real sockets get their form of a message; those that are dead, slow, lying, elsewhere
//! or not who they say hold nobody up, and hear of it later, once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::Value;

use runner::env::Env;

use crate::certificate_authority::CertificateAuthority;
use crate::site::{Site, words};
use crate::support::webhook_server::{ServerAnswer, WebhookServer};

/// A channel's lines.
fn channel(name: &str, kind: &str, lines: &str) -> String {
    format!("[[notify.channel]]\nname = \"{name}\"\nkind = \"{kind}\"\ntimeout = \"1s\"\n{lines}\n")
}

/// A site whose backup fails from now on.
fn broken(lines: impl Fn(&Site) -> String) -> Site {
    let site = Site::new("");
    let lines = lines(&site);
    site.config(&lines);
    site.write("file", "content");
    site.init();
    fs::rename(site.path("src"), site.path("away")).unwrap();
    site
}

fn secret(site: &Site, name: &str, content: &str) -> String {
    let path = site.path(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn each_service_gets_its_form() {
    let webhook = WebhookServer::answering(ServerAnswer::new(204, ""));
    let slack = WebhookServer::answering(ServerAnswer::new(200, "ok"));
    let teams = WebhookServer::answering(ServerAnswer::new(202, ""));
    let ntfy = WebhookServer::answering(ServerAnswer::new(200, "{\"id\":\"x1\",\"event\":\"message\"}"));
    let other = WebhookServer::answering(ServerAnswer::new(200, ""));
    let key = "0123456789abcdef0123456789abcdef";
    let site = broken(|site| {
        let key_file = secret(site, "signing", &format!("{key}\n"));
        let token_file = secret(site, "token", "tk_s3cret\n");
        let url_file = secret(site, "slack", &format!("{}/services/T0/B0/s3cret\n", slack.url));
        let mail = site.path("mail");
        [
            channel(
                "hook",
                "webhook",
                &format!(
                    "url = \"{}/hook\"\nsigning_key_file = \"{key_file}\"\ntoken_file = \"{token_file}\"\n\
                 headers = {{ X-Environment = \"test\" }}\nevents = [\"failed\"]\nroles = [\"app\"]",
                    webhook.url
                ),
            ),
            channel("chat", "slack", &format!("url_file = \"{url_file}\"")),
            channel("team", "teams", &format!("url = \"{}/workflows\"", teams.url)),
            channel("phone", "ntfy", &format!("url = \"{}/topic\"\ntoken_file = \"{token_file}\"", ntfy.url)),
            channel(
                "mail",
                "email",
                &format!("command = [\"sh\", \"-c\", \"cat > {}\"]\nto = [\"ops@example.net\"]", mail.display()),
            ),
            channel("others", "webhook", &format!("url = \"{}/\"\nevents = [\"takeover\", \"missed\"]", other.url)),
        ]
        .concat()
    });
    site.refused("east", 1);

    let request = &webhook.requests()[0];
    let document: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&document["event"], &document["phase"]), (&"failed".into(), &"begun".into()));
    assert_eq!((request.line.as_str(), request.headers["x-environment"].as_str()), ("POST /hook", "test"));
    assert_eq!(request.headers["authorization"], "Bearer tk_s3cret");
    let (time, signature) = request.headers["runner-signature"].split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let signed = format!("{time}.{}", request.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &hex::decode(signature).unwrap()).unwrap();
    let age = Env::host().clock.now().as_second() - time.parse::<i64>().unwrap();
    assert!((0..300).contains(&age), "{age}");

    let text = document["text"].as_str().unwrap();
    let sent = |server: &WebhookServer| serde_json::from_str::<Value>(&server.requests()[0].body).unwrap();
    assert_eq!((slack.heard()[0].0.as_str(), &sent(&slack)["text"]), ("POST /services/T0/B0/s3cret", &text.into()));
    let card = &sent(&teams)["attachments"][0]["content"];
    assert_eq!((&card["type"], &card["body"][1]["inlines"][0]["text"]), (&"AdaptiveCard".into(), &text.into()));
    let message = &ntfy.requests()[0];
    assert_eq!((message.line.as_str(), message.body.as_str()), ("POST /topic", text));
    assert_eq!(
        (message.headers["title"].as_str(), message.headers["priority"].as_str()),
        ("runner: app: failed", "high")
    );
    assert_eq!(message.headers["authorization"], "Bearer tk_s3cret");
    let mail = fs::read_to_string(site.path("mail")).unwrap();
    assert!(mail.starts_with("To: ops@example.net\nSubject: runner: app: failed\nDate: "), "{mail}");
    assert_eq!(other.heard(), [], "it wants other events");

    // The recovery goes to those who heard of the failure.
    fs::rename(site.path("away"), site.path("src")).unwrap();
    site.backup("east");
    assert_eq!(ntfy.requests()[1].headers["title"], "runner: app: failed is over");
    for server in [&webhook, &slack, &teams, &ntfy] {
        assert_eq!(server.heard().len(), 2);
    }
}

#[test]
fn receivers_that_do_not_take_it_hold_nobody_up_and_hear_of_it_later_once() {
    let fine = WebhookServer::answering(ServerAnswer::new(200, ""));
    let slow = WebhookServer::answering(ServerAnswer::new(200, ""));
    slow.answer_instead(Some(ServerAnswer::new(200, "").after(Duration::from_secs(20))));
    let lying = WebhookServer::answering(ServerAnswer::new(200, "ok"));
    lying.answer_instead(Some(ServerAnswer::new(200, "<html>Sign in</html>")));
    let moved = WebhookServer::answering(ServerAnswer::new(200, ""));
    moved.answer_instead(Some(ServerAnswer::new(302, "").header("location", &format!("{}/stolen", fine.url))));
    let authority = CertificateAuthority::new();
    let (certificate, key) = authority.sign();
    let unknown = WebhookServer::over_tls(ServerAnswer::new(200, ""), &certificate, &key);
    // Nothing listens there yet.
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let lines = |trusted: &str| {
        [
            channel("dead", "webhook", &format!("url = \"http://{dead}/\"")),
            channel("slow", "webhook", &format!("url = \"{}/\"", slow.url)),
            channel("lying", "slack", &format!("url = \"{}/s3cret\"", lying.url)),
            channel("moved", "webhook", &format!("url = \"{}/\"", moved.url)),
            channel("unknown", "webhook", &format!("url = \"{}/\"\n{trusted}", unknown.url)),
            channel("fine", "webhook", &format!("url = \"{}/\"", fine.url)),
        ]
        .concat()
    };
    let site = broken(|_| lines(""));
    let clock = Env::host().clock;
    let started = clock.boottime();
    let run = site.node("east").run(["backup", "app"]).expect(1);
    let elapsed = clock.boottime().saturating_sub(started);
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
    let accepted = fine.accepted();
    assert_eq!(accepted.len(), 1, "the others delay it by nothing");
    assert_eq!(accepted[0].line, "POST /", "no redirect is followed");
    let said = words(&run);
    for part in [
        "slow: 127.0.0.1:",
        "no answer in 1s",
        "and not \"ok\": <html>Sign in</html>",
        "a redirect to 127.0.0.1:",
        "unknown: 127.0.0.1:",
        "dead: 127.0.0.1:",
        "5 alerts were not delivered yet",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");

    // They answer as they should, and hear of it from the next process, which has nothing new to tell.
    let risen = WebhookServer::at(&dead, ServerAnswer::new(200, ""));
    for server in [&slow, &lying, &moved] {
        server.answer_instead(None);
    }
    let ca_file = secret(&site, "ca.pem", authority.pem());
    site.config(&lines(&format!("ca_file = \"{ca_file}\"")));
    for _ in 0..2 {
        site.refused("east", 1);
    }
    for (name, server) in [
        ("dead", &risen),
        ("slow", &slow),
        ("lying", &lying),
        ("moved", &moved),
        ("unknown", &unknown),
        ("fine", &fine),
    ] {
        let accepted = server.accepted();
        assert_eq!(accepted.len(), 1, "{name}: {accepted:?}");
        assert!(accepted[0].body.contains("the backup on east failed"), "{name}: {accepted:?}");
    }
}

#[test]
fn a_healthchecks_channel_carries_the_report_and_hears_nothing_of_a_standby() {
    let server = WebhookServer::answering(ServerAnswer::new(200, "OK"));
    let site = Site::new("");
    let lines = channel("hc", "healthchecks", &format!("url = \"{}/ping/{{role}}\"\nroles = [\"app\"]", server.url));
    site.config(&site.probed(&lines));
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.backup("east");
    site.node("west").run(["backup", "app"]).expect(0);
    fs::rename(site.path("src"), site.path("away")).unwrap();
    site.refused("east", 1);
    let heard = server.heard();
    let requests: Vec<&str> = heard.iter().map(|(request, _)| request.as_str()).collect();
    let expected = ["GET /ping/app/start", "POST /ping/app", "GET /ping/app/start", "POST /ping/app/fail"];
    assert_eq!(requests, expected, "a standby pings nobody");
    assert!(heard[1].1.starts_with("app: committed ") && heard[1].1.contains("2 entries new"), "{}", heard[1].1);
    assert!(heard[3].1.contains("src"), "{}", heard[3].1);

    // A ping that the service ignored is no success.
    server.answer_instead(Some(ServerAnswer::new(200, "OK (not found)")));
    let said = site.refused("east", 1);
    assert!(said.contains("hc: 127.0.0.1:") && said.contains("OK (not found)"), "{said}");
}

#[test]
fn a_test_message_tells_of_each_channel_what_was_seen() {
    let slack = WebhookServer::answering(ServerAnswer::new(200, "ok"));
    let hc = WebhookServer::answering(ServerAnswer::new(200, "OK"));
    let gone = WebhookServer::answering(ServerAnswer::new(404, "no_service"));
    let site = Site::new("");
    let good = channel("chat", "slack", &format!("url = \"{}/s3cret\"", slack.url))
        + &channel("hc", "healthchecks", &format!("url = \"{}/ping/{{role}}\"", hc.url));
    site.config(&good);
    let node = site.node("east");
    let run = node.run(["notify", "test"]).expect(0);
    assert!(run.stdout.contains("chat (slack): delivered: status 200 after "), "{}", run.stdout);
    assert!(run.stdout.contains("as a line of the log of role app"), "{}", run.stdout);
    let text = "This is a test message of runner on node east: alerts reach this channel.";
    assert_eq!(hc.heard(), [("POST /ping/app/log".to_owned(), text.to_owned())]);
    assert!(slack.heard()[0].1.contains(text));

    site.config(&(good + &channel("old", "slack", &format!("url = \"{}/s3cret\"", gone.url))));
    let document = node.run(["notify", "test", "--json"]).expect(1).json();
    let of = |name: &str| document["channels"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
    assert_eq!((&of("chat")["delivered"], &of("chat")["status"]), (&true.into(), &200.into()));
    assert_eq!((&of("old")["delivered"], &of("old")["status"]), (&false.into(), &404.into()));
    assert!(of("old")["error"].as_str().unwrap().ends_with("404 Not Found: no_service"));
    assert!(!document.to_string().contains("s3cret"), "{document}");
    node.run(["notify", "test", "chat"]).expect(0);
    let unknown = node.run(["notify", "test", "chta"]).expect(2);
    assert!(unknown.stderr.contains("hint: it has chat, hc, old."), "{}", unknown.stderr);
    site.config("");
    assert!(node.run(["notify", "test"]).expect(2).stderr.contains("no channel for alerts"));
    assert!(!site.path("state-east").join("notices.json").exists(), "nothing is kept");
}

#[test]
fn each_line_of_a_json_log_is_an_object_with_its_fields() {
    let site = Site::new("");
    site.config("before = [\"sh\", \"-c\", \"echo from-hook\"]");
    site.write("file", "content");
    site.init();
    let mut node = site.node("east");
    node.env.push(("RUNNER_LOG_FORMAT".to_owned(), "json".to_owned()));
    let lines = |stderr: &str| -> Vec<Value> {
        stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    };
    let run = node.run(["-v", "backup", "app"]).expect(0);
    let said = lines(&run.stderr);
    let hook = said.iter().find(|line| line["message"].as_str().unwrap().ends_with("from-hook")).unwrap();
    assert_eq!((&hook["role"], &hook["term"], &hook["level"]), (&"app".into(), &1.into(), &"info".into()));
    fs::rename(site.path("src"), site.path("away")).unwrap();
    let refused = lines(&node.run(["backup", "app"]).expect(1).stderr);
    assert!(refused.iter().any(|line| line["message"].as_str().unwrap().contains("src")), "{refused:?}");
    let usage = lines(&node.run(["backup", "nosuch"]).expect(2).stderr);
    assert_eq!((usage.len(), &usage[0]["level"]), (1, &"error".into()));

    node.env.pop();
    node.env.push(("RUNNER_LOG_FORMAT".to_owned(), "yaml".to_owned()));
    let odd = node.run(["-v", "whoami", "app"]).stderr;
    assert!(odd.contains("RUNNER_LOG_FORMAT is \"yaml\""), "{odd}");
}
