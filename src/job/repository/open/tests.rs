//! Opening a repository: key slots planted by a writer without the key, and a secret that cannot be read.

use super::*;
use crate::config::{StoreSettings, StoreUrl};
use crate::ids::Seq;
use crate::job::repair::error::RepairError;

use crate::job::keys::{self, KeysError};
use crate::job::repair::recovery::{RecoveryInputs, open_damaged};
use crate::job::report::setup::KeyChange;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::testing::JobFixture;
use crate::store::counting::CountingStore;

/// Number of this program's passphrase slots that one command tries at most.
const TRIED_MAX: usize = (SLOT_WORK_KIB_MAX / (192 << 10)) as usize;

/// A fixture that a passphrase opens as well, and its slot.
async fn rig() -> (JobFixture, KeySource, KeyId) {
    let rig = JobFixture::new().await;
    std::fs::write(rig.dir.path().join("phrase"), "correct horse\n").unwrap();
    let phrase = KeySource::PassphraseFile(rig.dir.path().join("phrase"));
    let KeyChange::Added(slot) = keys::add(&rig.repository, &phrase, &rig.env).await.unwrap().change else {
        panic!("not added")
    };
    (rig, phrase, slot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_planted_slots_cost_what_is_allowed_and_the_rest_is_told() {
    let (rig, phrase, own) = rig().await;
    rig.plant_slots(1000);
    let (store, counters) = CountingStore::new(rig.store.clone());
    let store: Arc<dyn Store> = Arc::new(store);
    let open = async |slot| Repository::open_by(store.clone(), &rig.role.name, &phrase, |_| slot).await;

    // For each slot that is named here a key was derived.
    let refused = open(None).await;
    let Err(error @ OpenError::WrongSecret { .. }) = refused else { panic!("{refused:?}") };
    let OpenError::WrongSecret { slots, untried, .. } = &error else { unreachable!() };
    assert_eq!((slots.len(), untried), (TRIED_MAX, &(1002 - TRIED_MAX)));
    assert!(counters.snapshot().requests() <= 70, "{}", counters.snapshot().requests());
    let text = error.to_string();
    assert!(text.contains("21 key slots tried, 981 more not"), "{text}");

    // With the remembered slot no other one is read.
    let before = counters.snapshot().requests();
    let repository = open(Some(own)).await.unwrap();
    assert_eq!((repository.slot, counters.snapshot().requests() - before), (Some(own), 2));
    // A slot that was not tried is not called wrong, and removing a known slot still works.
    let planted = list_key_slots(store.as_ref(), &rig.role.name).await.unwrap().found[0].id;
    assert!(planted != own);
    keys::remove(&repository, planted, &phrase).await.unwrap();
    let refused = keys::remove(&repository, own, &phrase).await;
    assert!(matches!(refused, Err(KeysError::TooManySlots(_))), "{refused:?}");
    let more = KeySource::KeyFile(rig.dir.path().join("more"));
    let refused = keys::add(&repository, &more, &rig.env).await;
    assert!(matches!(refused, Err(KeysError::TooManySlots(_))), "the slot would not be found: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_is_lost_among_planted_slots_says_what_was_not_tried() {
    let (rig, phrase, _) = rig().await;
    rig.write("a", "content");
    rig.backup().await;
    rig.plant_slots(1000);
    rig.memory.tamper(&object_keys::format(&rig.role.name), None);
    // Records of repositories that do not exist: each asks for another try of every slot.
    for seq in 1..9 {
        let key = object_keys::record(&rig.role.name, Seq(1));
        let record = String::from_utf8(rig.memory.objects()[&key].to_vec()).unwrap();
        let record = record.replace(&rig.repository.format.repo.to_string(), &format!("{seq:032x}"));
        rig.memory.tamper(&object_keys::record(&rig.role.name, Seq(100 + seq)), Some(record.into()));
    }
    let store = rig.store.clone();
    let place =
        RepositoryLocation::new(&StoreSettings::new(StoreUrl::Dir("/b".into()), KeySource::None), &rig.role.name);
    let (role, key, journal_access) = (&rig.role.name, &phrase, &JournalAccess::default());
    let step = RecoveryInputs { role, key, place: &place, state_dir: None, journal_access, env: &rig.env };
    let refused = open_damaged(store, step).await;
    let Err(RepairError::UntriedSlots { untried, .. }) = refused else { panic!("{refused:?}") };
    // Over all repositories that are named, the work stays within the limit of one command.
    assert!(untried >= 938 + 9 * 62 - TRIED_MAX, "{untried}");
}

#[test]
fn a_secret_that_never_comes_is_given_up_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("key");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = read_secret_file(&fifo, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, SecretFileError::Silent(_)), "{error}");
    assert_eq!(error.to_string(), "it could not be read within 50ms");
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::write(fifo, "late")
    });
    // The reader that was given up may be the one that gets the text; then no other writer follows.
    writer.join().unwrap().unwrap();
    std::fs::remove_file(&fifo).unwrap();
    std::fs::write(&fifo, "there").unwrap();
    assert_eq!(read_secret_file(&fifo, Duration::from_secs(10)).unwrap(), b"there");
}
