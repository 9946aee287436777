//! Rotations of a repository in memory: interrupted at each request, two at once, beside a writer, and as seen by the
//! holder of the old key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::ids::{InstanceId, KeyGeneration, PackId};
use crate::job::admission::role_journal::RoleJournal;

use crate::job::backup::request::BackupOptions;
use crate::job::error::BackupError;

use crate::job::keys::export;
use crate::job::repository::open::OpenError;
use crate::job::repository::read_only::ReadOnlyRepository;
use crate::job::testing::{JobFixture, noise};
use crate::journal::record::{Record, RecordError};
use crate::journal::view::FoldError;
use crate::repo::index::decode_index;
use crate::repo::pack::open_header;
use crate::repo::{mac_line, object_keys};
use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};

fn file(rig: &JobFixture, name: &str) -> KeySource {
    KeySource::KeyFile(rig.dir.path().join(name))
}

fn by(rig: &JobFixture, node: u8) -> KeyRotator<'_> {
    let instance = InstanceId(rig.env.random_bytes());
    let operator = OperatorContext { instance, ..rig.operator(node, &format!("node{node}")) };
    KeyRotator { operator, role: &rig.role, assessment: None, force: true }
}

fn ask<'a>(given: &'a KeySource, new: &KeySource) -> RotateRequest<'a> {
    RotateRequest { current: given, new: Some(new.clone()), keep: Vec::new(), drop: Vec::new(), dry_run: false }
}

async fn opened(rig: &JobFixture, key: &KeySource) -> Result<Repository, OpenError> {
    Repository::open(rig.store.clone(), &rig.role.name, key).await
}

/// The content of file `name` in each snapshot, as read by a host that has only this key.
async fn contents(rig: &JobFixture, key: &KeySource, name: &str) -> Result<Vec<Vec<u8>>, JournalError> {
    let repository = opened(rig, key).await.unwrap();
    let archive = ReadOnlyRepository::open(repository, &rig.env, None).await?;
    if let Some(doubt) = &archive.damaged {
        return Err(doubt.clone());
    }
    let (reader, mut all) = (archive.reader().await.unwrap(), Vec::new());
    for snapshot in archive.snapshots() {
        let mut content = Vec::new();
        let path = rig.path(name);
        crate::job::browse::cat(&reader, snapshot.root, &path, &mut content).await.unwrap();
        all.push(content);
    }
    Ok(all)
}

fn rotation(report: &KeyReport) -> &KeyRotation {
    let KeyChange::Rotated(rotation) = &report.change else { panic!("{report:?}") };
    rotation
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_a_rotation_does_not_open_with_the_old_key() {
    let mut rig = JobFixture::new().await;
    rig.write("f", noise(1, 3 << 20));
    rig.write("g", noise(1, 100));
    rig.backup().await;
    let (old, new) = (rig.role.key.clone(), file(&rig, "new"));
    let thief = rig.repository.clone();
    let SlotSecret::Exported(_, stolen) = export(&thief).unwrap() else { panic!("a repository key") };
    let before = rig.memory.objects();

    let report = rotate(&rig.repository, &by(&rig, 1), &ask(&old, &new)).await.unwrap();
    assert_eq!((rotation(&report).generation, report.slots.len()), (KeyGeneration(1), 1));
    assert_eq!(rotation(&report).removed.len(), 1);
    assert!(rig.memory.objects().keys().all(|key| !key.contains("/rotate/")), "nothing is left staged");
    assert!(matches!(opened(&rig, &old).await, Err(OpenError::WrongSecret { .. })));
    rig.repository = opened(&rig, &new).await.unwrap();
    rig.write("f", noise(2, 3 << 20));
    let second = rig.backup().await;
    assert!(second.bytes.uploaded > 3 << 20);
    assert_eq!(contents(&rig, &new, "f").await.unwrap(), [noise(1, 3 << 20), noise(2, 3 << 20)]);
    assert_eq!(contents(&rig, &new, "g").await.unwrap(), [noise(1, 100), noise(1, 100)]);

    // Tries the old key on each new object.
    let role = &rig.role.name;
    let (mut packs, mut indexes, mut records, mut told) = (0, 0, 0, 0);
    for (key, object) in rig.memory.objects().iter().filter(|(key, object)| before.get(*key) != Some(*object)) {
        if let Some(id) = object_keys::parse_pack(role, key) {
            assert!(open_header(&thief.keys, object).is_err(), "{key}");
            let salt: [u8; 32] = object[8..40].try_into().unwrap();
            let sealed = &object[40..];
            assert!(
                thief
                    .keys
                    .object_sealer(PackId::as_bytes(&id).to_owned(), salt)
                    .open(crate::repo::crypto::SealedPart::Frame(0), sealed)
                    .is_err()
            );
            packs += 1;
        } else if let Some(id) = object_keys::parse_index(role, key) {
            assert!(decode_index(&thief.keys, id, object).is_err(), "{key}");
            indexes += 1;
        } else if object_keys::parse_record(role, key).is_some() {
            let found = Record::decode(object, Some(&thief.keys));
            // The old key can still read the rotation's takeover and the rotation itself.
            records += usize::from(found == Err(RecordError::Rotated(KeyGeneration(1))));
        } else if key.contains("/live/nodes/") || key.ends_with("/live/beat") {
            assert!(mac_line::open(object, &thief.keys).is_err(), "{key}");
            told += 1;
        } else if key.contains("/keys/") {
            let id = key.rsplit('/').next().unwrap().parse().unwrap();
            let slot = KeySlot::open(id, object).unwrap();
            let (secret, _) = read_secret(&old).unwrap().unwrap();
            assert!(slot.unwrap(&secret, thief.format.repo).is_err(), "{key}");
        }
    }
    assert!(packs > 0 && indexes > 0 && records > 0, "{packs} {indexes} {records} {told}");

    // Everything before the rotation is readable, and reported as all that the old key opens.
    let archive = ReadOnlyRepository::open(thief.clone(), &rig.env, None).await.unwrap();
    assert_eq!(archive.snapshots().len(), 1);
    assert!(matches!(archive.damaged, Some(JournalError::Rotated { generation: KeyGeneration(1), .. })));
    assert_eq!(stolen, *thief.keys.keyring());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_the_old_key_forges_nothing_afterwards() {
    let mut rig = JobFixture::new().await;
    rig.write("f", "one");
    rig.backup().await;
    let (old, new) = (rig.role.key.clone(), file(&rig, "new"));
    let thief = rig.repository.clone();
    rotate(&rig.repository, &by(&rig, 1), &ask(&old, &new)).await.unwrap();
    let role = rig.role.name.clone();
    let genuine = rig.memory.objects();
    let numbers: Vec<Seq> = genuine.keys().filter_map(|key| object_keys::parse_record(&role, key)).collect();
    let last = *numbers.last().unwrap();
    let read = async || contents(&rig, &new, "f").await;

    // A record after the newest one, made with the old key.
    let rotate_object = &genuine[&object_keys::record(&role, last)];
    let rotated = Record::decode(rotate_object, Some(&thief.keys)).unwrap();
    let forged = |seq: Seq, body: RecordBody, prev: &Bytes| Record {
        seq,
        body,
        prev: Some(crate::journal::record::digest(prev)),
        state: None,
        ..rotated.clone()
    };
    let pause = RecordBody::Resume;
    let next = Record { takeover: None, ..forged(last.next(), pause, rotate_object) };
    rig.memory.tamper(&object_keys::record(&role, last.next()), Some(next.encode(&thief.keys).into()));
    let refused = read().await;
    let is_refused = matches!(&refused, Err(JournalError::Fold { error: FoldError::Generation { .. }, .. }));
    assert!(is_refused, "{refused:?}");
    rig.memory.tamper(&object_keys::record(&role, last.next()), None);
    assert_eq!(read().await.unwrap(), [b"one"]);

    // Another rotation with other slots in place of the genuine one.
    let RecordBody::Rotate(body) = rotated.body.clone() else { panic!("{rotated:?}") };
    let mut other = Record { body: RecordBody::Rotate(RotateBody { slots: Vec::new(), ..body }), ..rotated.clone() };
    other.add_rotation_proof(&thief.keys);
    rig.memory.tamper(&object_keys::record(&role, last), Some(other.encode(&thief.keys).into()));
    let refused = read().await;
    let is_refused = |error: &JournalError| match error {
        JournalError::Unverified(error) => {
            matches!(**error, JournalError::Record { error: RecordError::Damaged(_), .. })
        }
        _ => false,
    };
    assert!(refused.as_ref().is_err_and(is_refused), "what is before it is not believed either: {refused:?}");

    // The journal without its rotation: the newer key proves that a record is missing.
    rig.memory.tamper(&object_keys::record(&role, last), None);
    let refused = read().await;
    let is_refused =
        matches!(refused, Err(JournalError::OlderThanKey { now: KeyGeneration(0), given: KeyGeneration(1) }));
    assert!(is_refused, "{refused:?}");

    // Objects that the old key's holder writes below `live/` are ignored.
    rig.memory.tamper(&object_keys::record(&role, last), Some(rotate_object.clone()));
    rig.repository = opened(&rig, &new).await.unwrap();
    assert!(mac_line::open(&mac_line::seal(b"{}", &thief.keys), &rig.repository.keys).is_err());
}

/// Runs the command until request number `calls`, which is never answered. `false`: the command sends fewer requests.
async fn is_cut_short(rig: &JobFixture, old: &KeySource, new: &KeySource, calls: u64) -> bool {
    let hang = InjectedFault::Delay(Duration::from_hours(1));
    let faulty = Arc::new(FaultyStore::new(rig.store.clone(), FaultPlan::exactly([(calls, hang)])));
    let through = Repository { store: faulty.clone(), ..rig.repository.clone() };
    let (by, ask) = (by(rig, 1), ask(old, new));
    let run = rotate(&through, &by, &ask);
    let hung = async {
        while faulty.calls() <= calls {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        done = run => { done.unwrap(); false }
        () = hung => true
    }
}

/// The command is run, interrupted before each of its requests in turn, and run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_cut_short_at_any_request_loses_nothing_and_is_finished() {
    let mut cut = 0;
    let (mut begun_anew, mut finished, mut was_done) = (0, 0, 0);
    loop {
        let mut rig = JobFixture::new().await;
        rig.write("f", "one");
        rig.backup().await;
        let (old, new) = (rig.role.key.clone(), file(&rig, "new"));
        let died = is_cut_short(&rig, &old, &new, cut).await;
        if !died {
            break;
        }
        // At every moment one of the two keys opens the repository, and the same command continues.
        match opened(&rig, &old).await {
            Ok(repository) => {
                let report = rotate(&repository, &by(&rig, 1), &ask(&old, &new)).await.unwrap();
                if rotation(&report).finished { finished += 1 } else { begun_anew += 1 }
            }
            Err(error) => {
                assert!(matches!(error, OpenError::WrongSecret { .. }), "cut {cut}: {error}");
                was_done += 1;
            }
        }
        assert_eq!(contents(&rig, &new, "f").await.unwrap(), [b"one"], "cut {cut}");
        assert!(matches!(opened(&rig, &old).await, Err(OpenError::WrongSecret { .. })), "cut {cut}");
        rig.repository = opened(&rig, &new).await.unwrap();
        assert_eq!(rig.repository.keys.generation(), KeyGeneration(1), "cut {cut}");
        rig.write("f", "two");
        rig.backup().await;
        assert_eq!(contents(&rig, &new, "f").await.unwrap(), [b"one", b"two"], "cut {cut}");
        cut += 1;
    }
    assert!(begun_anew > 5 && finished > 2 && was_done > 0, "{begun_anew} {finished} {was_done}");
}

/// The new key file of the first attempt is lost: no slot is removed that a given secret opens.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_key_is_lost_is_not_finished_and_the_old_key_opens() {
    let mut was_refused = 0;
    for cut in 0.. {
        let rig = JobFixture::new().await;
        rig.write("f", "one");
        rig.backup().await;
        let (old, new, other) = (rig.role.key.clone(), file(&rig, "new"), file(&rig, "other"));
        if !is_cut_short(&rig, &old, &new, cut).await {
            break;
        }
        let _ = std::fs::remove_file(rig.dir.path().join("new"));
        let Ok(repository) = opened(&rig, &old).await else { break };
        match rotate(&repository, &by(&rig, 1), &ask(&old, &other)).await {
            Err(KeysError::NotAtHand(generation)) => {
                assert_eq!(generation, KeyGeneration(1));
                was_refused += 1;
                let again = opened(&rig, &old).await;
                assert!(again.is_ok(), "cut {cut}: {again:?}");
            }
            done => {
                let report = done.unwrap();
                assert!(!rotation(&report).finished, "cut {cut}: {report:?}");
                assert_eq!(contents(&rig, &other, "f").await.unwrap(), [b"one"], "cut {cut}");
            }
        }
    }
    assert!(was_refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_use_is_no_new_one() {
    let rig = JobFixture::new().await;
    rig.write("f", "one");
    rig.backup().await;
    let old = rig.role.key.clone();
    let refused = rotate(&rig.repository, &by(&rig, 1), &ask(&old, &old)).await;
    assert!(matches!(refused, Err(KeysError::InUse)), "{refused:?}");
    assert_eq!(opened(&rig, &old).await.unwrap().keys.generation(), KeyGeneration(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rotations_at_once_one_is_and_the_repository_opens() {
    for round in 0..20 {
        let rig = JobFixture::new().await;
        rig.write("f", "one");
        rig.backup().await;
        let (old, east, west) = (rig.role.key.clone(), file(&rig, "east"), file(&rig, "west"));
        let repositories = (opened(&rig, &old).await.unwrap(), opened(&rig, &old).await.unwrap());
        let (by_east, by_west) = (by(&rig, 1), by(&rig, 2));
        let (ask_east, ask_west) = (ask(&old, &east), ask(&old, &west));
        let both =
            tokio::join!(rotate(&repositories.0, &by_east, &ask_east), rotate(&repositories.1, &by_west, &ask_west));
        assert!(both.0.is_ok() || both.1.is_ok(), "round {round}: {both:?}");
        let mut open = 0;
        for key in [&east, &west] {
            // The file that the losing rotation made opens nothing.
            if let Ok(repository) = opened(&rig, key).await {
                assert_eq!(repository.keys.generation(), KeyGeneration(1));
                assert_eq!(contents(&rig, key, "f").await.unwrap(), [b"one"]);
                open += 1;
            }
        }
        assert_eq!(open, 1, "round {round}: {both:?}");
        assert!(opened(&rig, &old).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_with_the_old_key_is_fenced_and_goes_on_with_the_new_one() {
    let mut rig = JobFixture::new().await;
    rig.write("f", "one");
    rig.backup().await;
    let (old, new) = (rig.role.key.clone(), file(&rig, "new"));
    let node_context = rig.node_context();
    let role = RoleSettings { eligible: None, ..rig.role.clone() };
    let opening = RoleJournal::open(&node_context, &rig.repository).await.unwrap();
    rotate(&rig.repository, &by(&rig, 2), &ask(&old, &new)).await.unwrap();
    rig.write("f", "two");
    let stopped = Box::pin(opening.back_up(&role, &rig.candidacy(), &BackupOptions::default())).await;
    let is_stopped = match &stopped {
        Err(error @ BackupError::Append(AppendError::Fenced(_))) => !error.is_rotated(),
        Err(error) => error.is_rotated(),
        Ok(_) => false,
    };
    assert!(is_stopped, "{stopped:?}");
    let again = RoleJournal::open(&node_context, &rig.repository).await;
    assert!(matches!(&again, Err(error) if error.is_rotated()), "{again:?}");
    rig.repository = opened(&rig, &new).await.unwrap();
    rig.backup_by(&node_context).await;
    assert_eq!(contents(&rig, &new, "f").await.unwrap(), [b"one", b"two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_renewed_and_nothing_is_dropped_without_a_word() {
    let rig = JobFixture::new().await;
    let (old, phrase) = (rig.role.key.clone(), KeySource::PassphraseFile(rig.dir.path().join("phrase")));
    std::fs::write(rig.dir.path().join("phrase"), "correct horse\n").unwrap();
    let other = file(&rig, "other");
    for key in [&phrase, &other] {
        keys::add(&rig.repository, key, &rig.env).await.unwrap();
    }
    let found = list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found;
    let objects = rig.memory.objects();
    let new = file(&rig, "new");
    let refused = rotate(&rig.repository, &by(&rig, 1), &ask(&old, &new)).await;
    assert!(matches!(&refused, Err(KeysError::Plan(plan::RotatePlanError::Unaccounted(ids))) if ids.len() == 2));
    let wrong = file(&rig, "wrong");
    keys::secret_or_new(&wrong, &rig.env).unwrap();
    let asked = RotateRequest { keep: vec![wrong], ..ask(&old, &new) };
    assert!(matches!(rotate(&rig.repository, &by(&rig, 1), &asked).await, Err(KeysError::OpensNothing(_))));
    let mut drop = Vec::new();
    let (secret, _) = read_secret(&other).unwrap().unwrap();
    for found in &found {
        if keys::opens(found, &secret, &rig.repository, &mut KeySlotTrial::default()).await {
            drop.push(found.id);
        }
    }
    let asked = RotateRequest { keep: vec![phrase.clone()], drop, ..ask(&old, &new) };
    let dry = rotate(&rig.repository, &by(&rig, 1), &RotateRequest { dry_run: true, ..asked.clone() }).await.unwrap();
    assert_eq!((rotation(&dry).removed.len(), rotation(&dry).dry_run), (3, true));
    assert_eq!(rig.memory.objects(), objects, "neither refusals nor a dry run change anything");
    assert!(!rig.dir.path().join("new").exists());

    let report = rotate(&rig.repository, &by(&rig, 1), &asked).await.unwrap();
    assert_eq!((rotation(&report).written.len(), rotation(&report).removed.len()), (2, 3));
    for (key, opens) in [(&new, true), (&phrase, true), (&old, false), (&other, false)] {
        assert_eq!(opened(&rig, key).await.is_ok(), opens, "{key:?}");
    }
    // The next rotation keeps the given keys, and an exported key contains all generations.
    let asked =
        RotateRequest { new: None, keep: vec![new.clone(), phrase], current: &new, drop: Vec::new(), dry_run: false };
    let repository = opened(&rig, &new).await.unwrap();
    rotate(&repository, &by(&rig, 2), &asked).await.unwrap();
    let repository = opened(&rig, &new).await.unwrap();
    assert_eq!(repository.keys.generation(), KeyGeneration(2));
    let exported = rig.dir.path().join("exported");
    keys::export_to(&repository, &exported).await.unwrap();
    let exported = opened(&rig, &KeySource::KeyFile(exported)).await.unwrap();
    assert_eq!(exported.keys.keyring(), repository.keys.keyring());
}

/// Slots that an attacker planted before a rotation are older than the rotation's own, and a fresh host remembers none.
#[tokio::test(flavor = "multi_thread")]
async fn the_slots_that_a_rotation_made_are_tried_before_planted_ones() {
    let rig = JobFixture::new().await;
    let (old, phrase) = (rig.role.key.clone(), KeySource::PassphraseFile(rig.dir.path().join("phrase")));
    std::fs::write(rig.dir.path().join("phrase"), "correct horse\n").unwrap();
    rotate(&rig.repository, &by(&rig, 1), &ask(&old, &phrase)).await.unwrap();
    rig.plant_slots(1000);
    let repository = opened(&rig, &phrase).await.unwrap();
    assert_eq!(repository.keys.generation(), KeyGeneration(1));
    // A rotation is refused until the planted slots are removed, since some of them may belong to other users.
    let again = rotate(&repository, &by(&rig, 1), &ask(&phrase, &file(&rig, "new"))).await;
    assert!(matches!(again, Err(KeysError::TooManySlots(937))), "{again:?}");
}
