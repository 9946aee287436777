//! Whether a systemd unit is active, as `systemctl is-active` defines it. Two cases that it does not tell apart are
//! unknown: a unit on its way up or down, and a systemd that does not answer.

use std::collections::HashMap;
use std::time::Duration;

use super::command::{FinishedCommand, run};
use super::{CommandVariables, ProbeAnswer, ProbeDetail};
use crate::process::ProcessExit;

/// Asks systemd.
pub(super) async fn ask(unit: &str, timeout: Duration, context: &CommandVariables) -> (ProbeAnswer, ProbeDetail) {
    ask_of("systemctl", unit, timeout, context).await
}

async fn ask_of(
    systemctl: &str,
    unit: &str,
    timeout: Duration,
    context: &CommandVariables,
) -> (ProbeAnswer, ProbeDetail) {
    // After "--" no name is taken for an option: "-.mount" is a unit.
    let command = [systemctl, "show", "--property=LoadState,ActiveState,SubState", "--", unit].map(str::to_owned);
    match run(&command, timeout, context).await {
        Ok(FinishedCommand { ended: Some(ProcessExit::Exit(0)), out, .. }) => decide(&String::from_utf8_lossy(&out)),
        Ok(finished) => (ProbeAnswer::Unknown, finished.detail(timeout)),
        Err(e) => (ProbeAnswer::Unknown, ProbeDetail::NotRun(e.to_string())),
    }
}

/// What the properties, one `Name=value` a line, say. Pure.
pub fn decide(properties: &str) -> (ProbeAnswer, ProbeDetail) {
    let properties: HashMap<&str, &str> = properties.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let property = |name: &str| properties.get(name).copied().unwrap_or_default();
    let (active, sub) = (property("ActiveState"), property("SubState"));
    let answer = match active {
        // `refreshing` is systemd 257's: it reloads parts of itself and works meanwhile.
        "active" | "reloading" | "refreshing" => ProbeAnswer::Yes,
        "inactive" | "failed" => ProbeAnswer::No,
        _ => ProbeAnswer::Unknown,
    };
    let detail = match (active, property("LoadState")) {
        // In a changed root systemctl prints a sentence instead, with exit code 0.
        ("", _) => ProbeDetail::UnitUnread,
        ("inactive", "not-found") => ProbeDetail::NoUnit,
        _ => ProbeDetail::UnitState { active: active.to_owned(), sub: sub.to_owned() },
    };
    (answer, detail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn states_are_answers() {
        let said = |load: &str, active: &str, sub: &str| {
            let (answer, detail) = decide(&format!("LoadState={load}\nActiveState={active}\nSubState={sub}\n"));
            (answer, detail.to_string())
        };
        for (load, active, sub, answer, detail) in [
            ("loaded", "active", "running", ProbeAnswer::Yes, "active (running)"),
            ("loaded", "active", "exited", ProbeAnswer::Yes, "active (exited)"),
            ("loaded", "reloading", "reload", ProbeAnswer::Yes, "reloading (reload)"),
            ("loaded", "refreshing", "refresh-extensions", ProbeAnswer::Yes, "refreshing (refresh-extensions)"),
            ("loaded", "inactive", "dead", ProbeAnswer::No, "inactive (dead)"),
            ("masked", "inactive", "dead", ProbeAnswer::No, "inactive (dead)"),
            ("loaded", "failed", "failed", ProbeAnswer::No, "failed (failed)"),
            ("not-found", "inactive", "dead", ProbeAnswer::No, "systemd knows no such unit"),
            // The unit's file was removed while it runs: it still runs.
            ("not-found", "active", "running", ProbeAnswer::Yes, "active (running)"),
            ("loaded", "activating", "start-pre", ProbeAnswer::Unknown, "activating (start-pre)"),
            ("loaded", "deactivating", "stop-sigterm", ProbeAnswer::Unknown, "deactivating (stop-sigterm)"),
            ("loaded", "maintenance", "x", ProbeAnswer::Unknown, "maintenance (x)"),
        ] {
            assert_eq!(said(load, active, sub), (answer, detail.to_owned()), "{load} {active} {sub}");
        }
        for silent in ["", "Running in chroot, ignoring command 'show'\n", "LoadState=loaded\n"] {
            assert_eq!(decide(silent), (ProbeAnswer::Unknown, ProbeDetail::UnitUnread), "{silent:?}");
        }
    }

    /// The answer when `systemctl` is this script.
    async fn with(script: &str, timeout: Duration) -> (ProbeAnswer, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("systemctl");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let context = CommandVariables::new("east", "app".parse().unwrap());
        let (answer, detail) = ask_of(path.to_str().unwrap(), "app.service", timeout, &context).await;
        (answer, detail.to_string())
    }

    #[tokio::test]
    async fn systemctl_is_asked_and_not_trusted_further_than_it_goes() {
        const LONG: Duration = Duration::from_mins(1);
        let asked =
            "#!/bin/sh\n[ \"$*\" = 'show --property=LoadState,ActiveState,SubState -- app.service' ] || exit 9\n";
        let running = format!("{asked}echo LoadState=loaded; echo ActiveState=active; echo SubState=running\n");
        assert_eq!(with(&running, LONG).await, (ProbeAnswer::Yes, "active (running)".into()));
        let broken =
            format!("{asked}echo ActiveState=active; echo 'Failed to connect to bus: Host is down' >&2; exit 1\n");
        assert_eq!(
            with(&broken, LONG).await,
            (ProbeAnswer::Unknown, "exit 1: Failed to connect to bus: Host is down".into())
        );
        let killed = with("#!/bin/sh\nkill -TERM $$\n", LONG).await;
        assert_eq!(killed, (ProbeAnswer::Unknown, "killed by signal 15".into()));
        let hanging = with("#!/bin/sh\necho ActiveState=active\nsleep 1000\n", Duration::from_millis(500)).await;
        assert_eq!(hanging, (ProbeAnswer::Unknown, "no answer within 500ms: ActiveState=active".into()));
        let context = CommandVariables::new("east", "app".parse().unwrap());
        let (answer, detail) = ask_of("/no/such/systemctl", "app.service", LONG, &context).await;
        assert_eq!(answer, ProbeAnswer::Unknown);
        assert!(detail.to_string().starts_with("cannot be run: /no/such/systemctl"), "{detail}");
    }
}
