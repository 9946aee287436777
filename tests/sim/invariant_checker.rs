//! Who watches: sees every change of the bucket when it happens, and every word that a node says, and holds them against what is
//! promised. It folds the journal by itself, from docs/FORMAT.md; nothing of the program is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

pub use crate::reader::Files;
use crate::reader::{ChunkPosition, FormatReader, Id};
use crate::setup::{EVERY, MISSED_AFTER};
use crate::sim_store::{EffectObserver, EffectPlace as Where, StoredEffect};
use crate::world::WorldHandle;
use runner::env::Clock as _;
use runner::role::candidacy::Deadline;

/// A probe's answer is believed for so long by whoever asked: it is asked every five seconds, and work on it may wait for an answer.
const BELIEVED: Duration = Duration::from_mins(3);

/// What the store's whole seconds may hide.
const SECONDS: Duration = Duration::from_secs(2);

/// So long after a machine was frozen its lease may look good to it: as long as leases are, and what an answer takes.
const THAWED: Duration = Duration::from_secs(20);

/// Clocks may be so far apart.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// The other role of each process, where it has one: it has a lease, and nothing is backed up for it.
pub const SECOND: &str = "more";

/// One process of a host.
pub type ProcessId = (usize, u64);

#[derive(Debug)]
struct LiveSnapshot {
    id: Id,
    root: Id,
    files: Arc<Files>,
    packs: HashSet<Id>,
}

#[derive(Debug)]
struct CondemnedObject {
    /// World time of its record.
    at: Duration,
    packs: BTreeSet<Id>,
    indexes: BTreeSet<Id>,
}

/// A run that began under a permit, and may believe that it goes on under it.
#[derive(Debug)]
struct PermittedRun {
    role: String,
    who: ProcessId,
    since: Duration,
    deadline: Deadline,
}

#[derive(Debug, Default)]
struct CheckerState {
    objects: BTreeMap<String, Bytes>,
    reader: Option<FormatReader>,
    head: u64,
    last: Id,
    term: u64,
    takeover: Id,
    holder: String,
    slots: BTreeMap<Timestamp, (u64, Duration)>,
    live: Vec<LiveSnapshot>,
    indexes: Vec<Id>,
    condemned: BTreeMap<u64, CondemnedObject>,
    commits: u64,
    takeovers: u64,
    prunes: u64,
    swept: u64,
    /// Packs and index objects that were deleted.
    deleted: u64,
    given: HashMap<String, Vec<(Duration, Arc<Files>)>>,
    /// When each pack was put.
    born: HashMap<Id, Duration>,
    ids: HashSet<Id>,
    /// By number: who wrote it.
    writers: BTreeMap<u64, (String, String)>,
    denied: BTreeSet<(String, u64)>,
    said_yes: HashMap<String, Duration>,
    working: Vec<PermittedRun>,
    /// When each host was last stopped or let go on; and frozen, thawed or killed.
    held: BTreeMap<usize, Duration>,
    frozen: BTreeMap<usize, Duration>,
    /// Who has each role's lease.
    leases: BTreeMap<String, String>,
    /// The roles whose lease is in the bucket.
    in_bucket: BTreeSet<String>,
    /// Where etcd decides: when it took each record.
    decided: HashMap<Id, Duration>,
    /// The identities that two machines have, or had.
    twins: BTreeSet<String>,
    /// The latest instant that a record names: its slot, or when it was written by the store's clock or else its writer's.
    latest: Option<Timestamp>,
    /// How often each host changed something.
    effects: BTreeMap<usize, u64>,
    broken: Vec<String>,
}

/// What is known of one world by looking at it.
#[derive(Debug)]
pub struct InvariantChecker {
    world: WorldHandle,
    grace: Duration,
    /// Whether probes have to have said yes.
    probes: bool,
    state: Mutex<CheckerState>,
}

/// What happened in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordCounts {
    pub records: u64,
    pub commits: u64,
    pub takeovers: u64,
    pub prunes: u64,
    pub swept: u64,
    pub deleted: u64,
}

impl InvariantChecker {
    /// Of the repository of role `app` in this world, of which `objects` are there already.
    pub fn new(world: &WorldHandle, objects: BTreeMap<String, Bytes>, grace: Duration, probes: bool) -> Arc<Self> {
        let reader = Some(FormatReader::new(&objects["app/format"]));
        let state = CheckerState { objects, reader, ..CheckerState::default() };
        Arc::new(Self { world: world.clone(), grace, probes, state: Mutex::new(state) })
    }

    /// What is broken, in the order in which it was seen.
    pub fn broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    /// Whether nothing is.
    pub fn is_content(&self) -> bool {
        self.state().broken.is_empty()
    }

    pub fn count(&self) -> RecordCounts {
        let state = self.state();
        RecordCounts {
            records: state.head,
            commits: state.commits,
            takeovers: state.takeovers,
            prunes: state.prunes,
            swept: state.swept,
            deleted: state.deleted,
        }
    }

    /// How often this host changed anything.
    pub fn effects(&self, host: usize) -> u64 {
        self.state().effects.get(&host).copied().unwrap_or_default()
    }

    /// The slots that are committed, and when they were.
    pub fn slots(&self) -> BTreeMap<Timestamp, Duration> {
        self.state().slots.iter().map(|(slot, (_, at))| (*slot, *at)).collect()
    }

    /// The first slot that no node has committed in time, if one was committed before: by the store's time, and by the
    /// clock of a node that says `now`.
    pub fn missed_slot(&self, now: Timestamp) -> Option<Timestamp> {
        let slot = *self.state().slots.last_key_value()?.0 + EVERY;
        let is_missed = slot + MISSED_AFTER + SECONDS <= now.min(self.world.wall());
        is_missed.then_some(slot)
    }

    /// A run of this process begins with these files, under a permit that ends then.
    pub fn given(&self, who: ProcessId, instance: &str, files: Files, deadline: &Deadline) {
        let since = self.world.now();
        self.state().given.entry(instance.to_owned()).or_default().push((since, Arc::new(files)));
        self.works("app", who, instance, deadline);
    }

    /// This process begins to work for a role whose lease it has until then.
    pub fn works(&self, role: &str, who: ProcessId, instance: &str, deadline: &Deadline) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.working.retain(|working| working.who != who || working.role != role);
        let since = self.world.now();
        let frozen = state.frozen.get(&who.0).is_some_and(|at| since < *at + THAWED);
        let holds = deadline.until().is_some() && !deadline.passed(self.world.process(who.0).moment());
        if let Some(holder) = state.leases.get(role).filter(|holder| *holder != instance)
            && state.in_bucket.contains(role)
            && holds
            && !frozen
        {
            let broken = format!("{since:?}: host {} begins to work for {role}, and {holder} has its lease", who.0);
            state.broken.push(broken);
        }
        state.working.push(PermittedRun { role: role.to_owned(), who, since, deadline: deadline.clone() });
    }

    /// This host was stopped or let go on; `frozen`: its clocks were as well.
    pub fn was_held(&self, host: usize, frozen: bool) {
        let now = self.world.now();
        let mut state = self.state();
        state.held.insert(host, now);
        if frozen {
            state.frozen.insert(host, now);
        }
    }

    /// From now on two machines have this identity.
    pub fn cloned(&self, node: &str) {
        self.state().twins.insert(node.to_owned());
    }

    /// A node says that it exists twice.
    pub fn called_clone(&self, node: &str) {
        let mut state = self.state();
        if !state.twins.contains(node) {
            let at = self.world.now();
            state.broken.push(format!("{at:?}: node {node} is told that it exists twice, and it does not"));
        }
    }

    /// Whether a record names an instant so far ahead that a wrong clock wrote it.
    pub fn names_the_future(&self) -> bool {
        let now = self.world.wall();
        self.state().latest.is_some_and(|latest| latest.duration_since(now) > AHEAD)
    }

    /// Whether a committed slot lies so far ahead that a wrong clock named it. A journal's state remembers it, however old its record is.
    pub fn commits_the_future(&self) -> bool {
        let now = self.world.wall();
        self.state().slots.keys().any(|slot| slot.duration_since(now) > AHEAD)
    }

    /// What somebody else found.
    pub fn add(&self, broken: Vec<String>) {
        self.state().broken.extend(broken);
    }

    /// Its probes, all together, say yes to this process.
    pub fn said_yes(&self, instance: &str) {
        let now = self.world.now();
        self.state().said_yes.insert(instance.to_owned(), now);
    }

    /// A node says that this snapshot is committed.
    pub fn told_commit(&self, id: &str) {
        let mut state = self.state();
        if !state.ids.contains(id) {
            state.broken.push(format!("told of commit {id}, which the store does not have"));
        }
    }

    /// A node says that record `seq` was not written.
    pub fn told_unwritten(&self, instance: &str, seq: u64) {
        let mut state = self.state();
        if state.writers.get(&seq).is_some_and(|(by, kind)| by == instance && kind == "snapshot") {
            state.broken.push(format!("told that record {seq} was not written, and it was"));
        }
        state.denied.insert((instance.to_owned(), seq));
    }

    /// Somebody else has the lease now: whoever had it before has stopped by its own clock.
    pub fn lease_moved(&self, role: &str, to: &str) {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.leases.get(role).is_some_and(|holder| holder == to) {
            return;
        }
        let (working, others) =
            std::mem::take(&mut state.working).into_iter().partition(|working| working.role == role);
        state.working = others;
        let working: Vec<PermittedRun> = working;
        for PermittedRun { who: (host, life), since, deadline, .. } in working {
            // Nothing but the journal stops a machine that knows nothing of the time that passed.
            let now = self.world.now();
            let frozen = state.frozen.get(&host).is_some_and(|at| *at >= since || now < *at + THAWED);
            let runs = self.world.life(host) == life && !frozen;
            let moment = self.world.process(host).moment();
            // Without an end only where the operator chose that the holder goes on without its lease.
            let ends = deadline.until().is_some();
            if runs && ends && !deadline.passed(moment) && state.leases.contains_key(role) {
                let at = self.world.now();
                state
                    .broken
                    .push(format!("{at:?}: the lease of {role} went to {to}, and host {host} still works under it"));
            }
        }
        state.leases.insert(role.to_owned(), to.to_owned());
    }

    /// Whether each live snapshot has what was in it, read anew.
    pub fn read_all(&self) {
        let mut state = self.state();
        check_live(&mut state);
    }

    fn state(&self) -> MutexGuard<'_, CheckerState> {
        self.state.lock()
    }

    fn record(&self, state: &mut CheckerState, host: usize, seq: u64, object: &Bytes) -> Result<(), String> {
        let line = object.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let record: Value = serde_json::from_slice(line).map_err(|e| format!("record {seq}: {e}"))?;
        let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| record[field].as_u64().unwrap_or_default();
        let list = |of: &Value| -> Vec<Id> {
            of.as_array()
                .map(|ids| ids.iter().filter_map(|id| Some(id.as_str()?.to_owned())).collect())
                .unwrap_or_default()
        };
        let digest = blake3::hash(object).to_hex().to_string();
        let (kind, term, node, instance) =
            (text("kind"), number("term"), text_of(&record["node"]["id"]), text("instance"));
        let now = self.world.now();
        // One lineage.
        if seq != state.head + 1 || number("seq") != seq {
            return Err(format!("record {seq} after {}, and it says {}", state.head, number("seq")));
        }
        if text("prev") != state.last {
            return Err(format!("record {seq} does not continue the one before"));
        }
        // Terms never go back, and fencing.
        let unfenced = ["pause", "resume", "clone"].contains(&kind.as_str()) && text("takeover").is_empty();
        if kind == "takeover" {
            if term != state.term + 1 {
                return Err(format!("record {seq}: term {term} after {}", state.term));
            }
            (state.term, state.takeover, state.holder) = (term, digest.clone(), node.clone());
            state.takeovers += 1;
            let why = text_of(&record["body"]["why"]);
            let yes = state.said_yes.get(&instance).copied();
            // Unknown is not yes. Who was stopped meanwhile goes on where it was.
            let decided = state.decided.get(&digest).copied().unwrap_or(now);
            let stopped = state.held.get(&host).is_some_and(|at| decided < *at + BELIEVED);
            if self.probes && why != "operator" && yes.is_none_or(|at| decided > at + BELIEVED && !stopped) {
                return Err(format!("record {seq}: {node} took the role at {now:?}; its probes said yes at {yes:?}"));
            }
        } else if term != state.term || (!unfenced && text("takeover") != state.takeover) {
            return Err(format!("record {seq} ({kind}) was written under a takeover that is not the newest"));
        }
        if state.denied.contains(&(instance.clone(), seq)) && kind == "snapshot" {
            return Err(format!("record {seq} was told not to be written, and now it is"));
        }
        let body = &record["body"];
        let written = if record["store_time"].is_null() { text("time") } else { text("store_time") };
        let named = [written, text("slot")].into_iter().filter_map(|at| at.parse().ok()).max();
        state.latest = state.latest.max(named);
        match kind.as_str() {
            "snapshot" => {
                snapshot(state, seq, &digest, &instance, body)?;
                if let Ok(slot) = text("slot").parse::<Timestamp>() {
                    let (count, _) = *state.slots.entry(slot).and_modify(|(n, _)| *n += 1).or_insert((1, now));
                    if count > 1 {
                        return Err(format!("record {seq} commits slot {slot} once more"));
                    }
                }
                state.commits += 1;
            }
            "prune" => self.prune(state, seq, body, &list)?,
            "clone" if !state.twins.contains(&node) => {
                return Err(format!("record {seq} calls node {node} a clone, and no other machine has its identity"));
            }
            "swept" => {
                for prune in body["prunes"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
                    if state.condemned.remove(&prune).is_none() {
                        return Err(format!("record {seq} sweeps prune {prune}, which condemned nothing"));
                    }
                }
                state.swept += 1;
            }
            _ => {}
        }
        state.writers.insert(seq, (instance, kind));
        (state.head, state.last) = (seq, digest.clone());
        state.ids.insert(digest);
        Ok(())
    }

    fn prune(
        &self,
        state: &mut CheckerState,
        seq: u64,
        body: &Value,
        list: &dyn Fn(&Value) -> Vec<Id>,
    ) -> Result<(), String> {
        let forgotten: BTreeSet<Id> = list(&body["forgotten"]).into_iter().collect();
        let newest = state.live.last().map(|live| live.id.clone());
        if newest.is_some_and(|newest| forgotten.contains(&newest)) {
            return Err(format!("record {seq} forgets the newest snapshot"));
        }
        state.live.retain(|live| !forgotten.contains(&live.id));
        let indexes = list(&body["indexes"]);
        let replaced = state.indexes.iter().filter(|id| !indexes.contains(id)).cloned();
        let condemned = CondemnedObject {
            at: self.world.now(),
            packs: list(&body["packs"]).into_iter().collect(),
            indexes: replaced.chain(list(&body["strays"])).collect(),
        };
        state.indexes = indexes;
        if !(condemned.packs.is_empty() && condemned.indexes.is_empty()) {
            state.condemned.insert(seq, condemned);
        }
        state.prunes += 1;
        check_live(state);
        let condemned: BTreeSet<&Id> = state.condemned.values().flat_map(|c| &c.packs).collect();
        let hit = state.live.iter().find_map(|live| live.packs.iter().find(|pack| condemned.contains(pack)));
        hit.map_or(Ok(()), |pack| Err(format!("record {seq} condemns pack {pack}, which a live snapshot needs")))
    }

    /// Only prune deletes, when it has said so, and when whoever reads has had their time.
    fn deleted(&self, state: &mut CheckerState, key: &str) -> Result<(), String> {
        let id = key.rsplit('/').next().unwrap_or_default();
        let now = self.world.now();
        let by = state.condemned.iter().find(|(_, c)| c.packs.contains(id) || c.indexes.contains(id));
        let Some((seq, condemned)) = by else { return Err(format!("{key} was deleted, and no prune condemned it")) };
        if now + SECONDS < condemned.at + self.grace {
            return Err(format!(
                "{key} was deleted {:?} after prune {seq} condemned it",
                now.saturating_sub(condemned.at)
            ));
        }
        if let Some(live) = state.live.iter().find(|live| live.packs.contains(id)) {
            return Err(format!("{key} was deleted, and snapshot {} needs it", live.id));
        }
        state.deleted += 1;
        Ok(())
    }
}

impl EffectObserver for InvariantChecker {
    fn changed(&self, host: usize, what: &StoredEffect) {
        let mut guard = self.state();
        let state = &mut *guard;
        *state.effects.entry(host).or_default() += 1;
        if what.place == Where::Register {
            let digest = blake3::hash(what.after.as_deref().unwrap_or_default()).to_hex().to_string();
            state.decided.insert(digest, what.at);
            return;
        }
        match &what.after {
            Some(after) => state.objects.insert(what.key.clone(), after.clone()),
            None => state.objects.remove(&what.key),
        };
        if let Some((role, "lease")) = what.key.split_once("/live/")
            && let Some(after) = &what.after
            && let Ok(record) = serde_json::from_slice::<Value>(after)
            && record["released"] == Value::Bool(false)
        {
            state.in_bucket.insert(role.to_owned());
            let (role, to) = (role.to_owned(), text_of(&record["instance"]));
            drop(guard);
            self.lease_moved(&role, &to);
            return;
        }
        if what.key.starts_with(&format!("{SECOND}/live/")) {
            return;
        }
        let Some((folder, name)) = what.key.strip_prefix("app/").and_then(|key| key.split_once('/')) else {
            state.broken.push(format!("{} was written by host {host}", what.key));
            return;
        };
        let same = what.before == what.after;
        let done = match (folder, &what.before, &what.after) {
            ("live", ..) => return,
            ("journal" | "packs" | "index", Some(_), Some(_)) if same => Ok(()),
            ("journal", None, Some(object)) => {
                let number = name.parse().map_err(|_| format!("{} is no record", what.key));
                number.and_then(|seq| self.record(state, host, seq, object))
            }
            ("packs", None, Some(_)) => {
                let id = name.rsplit('/').next().unwrap_or_default().to_owned();
                state.born.insert(id, what.at);
                Ok(())
            }
            ("index", None, Some(_)) => Ok(()),
            ("packs" | "index", Some(_), None) => self.deleted(state, &what.key),
            _ => Err(format!("{} was {}", what.key, if what.after.is_some() { "overwritten" } else { "deleted" })),
        };
        if let Err(broken) = done {
            state.broken.push(format!("{:?}, host {host}: {broken}", what.at));
        }
    }
}

fn snapshot(state: &mut CheckerState, seq: u64, id: &str, instance: &str, body: &Value) -> Result<(), String> {
    let before: HashSet<Id> = index(state)?.into_keys().collect();
    let new: Vec<Id> =
        body["indexes"].as_array().into_iter().flatten().map(text_of).filter(|id| !id.is_empty()).collect();
    state.indexes.extend(new.iter().cloned());
    let root = text_of(&body["root"]);
    let (files, packs) = tree(state, &root).map_err(|e| format!("record {seq}, a new snapshot: {e}"))?;
    let given = state.given.get(instance).and_then(|all| all.iter().rfind(|(_, given)| **given == files)).cloned();
    let Some((began, files)) = given else {
        return Err(format!("record {seq} has files that no run of its process had"));
    };
    // What is committed is never sent again. A pack that a broken run left is named whole, and was not sent by this one.
    for id in &new {
        let object = state.objects.get(&format!("app/index/{id}")).cloned();
        let table = reader(state).table(id, object.as_ref())?;
        let sent = |place: &ChunkPosition| state.born.get(&place.pack).is_some_and(|at| *at >= began);
        if let Some((chunk, _)) = table.iter().find(|(chunk, place)| before.contains(chunk) && sent(place)) {
            return Err(format!("record {seq} brings chunk {chunk} once more"));
        }
    }
    if let Some(pack) = state.condemned.values().flat_map(|c| &c.packs).find(|pack| packs.contains(*pack)) {
        return Err(format!("record {seq} refers to pack {pack}, which is condemned"));
    }
    state.live.push(LiveSnapshot { id: id.to_owned(), root, files, packs });
    Ok(())
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn reader(state: &mut CheckerState) -> &mut FormatReader {
    state.reader.as_mut().expect("it is only lent")
}

/// Of several places of a chunk the first counts.
fn index(state: &mut CheckerState) -> Result<HashMap<Id, ChunkPosition>, String> {
    let mut index = HashMap::new();
    for id in state.indexes.clone() {
        let object = state.objects.get(&format!("app/index/{id}")).cloned();
        for (chunk, place) in reader(state).table(&id, object.as_ref())?.iter() {
            index.entry(chunk.clone()).or_insert_with(|| place.clone());
        }
    }
    Ok(index)
}

fn tree(state: &mut CheckerState, root: &str) -> Result<(Files, HashSet<Id>), String> {
    let index = index(state)?;
    let mut reader = state.reader.take().expect("it is only lent");
    let object = |pack: &str| state.objects.get(&format!("app/packs/{}/{pack}", &pack[..2])).cloned();
    let tree = reader.tree(root, &index, &object);
    state.reader = Some(reader);
    let (files, places) = tree?;
    Ok((files, places.into_iter().map(|place| place.pack).collect()))
}

fn check_live(state: &mut CheckerState) {
    let mut live = std::mem::take(&mut state.live);
    for snapshot in &mut live {
        match tree(state, &snapshot.root) {
            Ok((files, packs)) if files == *snapshot.files => snapshot.packs = packs,
            Ok(_) => state.broken.push(format!("snapshot {} restores to other files", snapshot.id)),
            Err(error) => state.broken.push(format!("snapshot {} cannot be restored: {error}", snapshot.id)),
        }
    }
    state.live = live;
}
