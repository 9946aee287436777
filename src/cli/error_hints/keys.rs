//! Errors of `key`.

use std::io;

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed, hinted};
use crate::cli::exit::ExitKind;
use crate::job::keys::KeysError;
use crate::job::keys::rotate::plan::RotatePlanError;
use crate::job::repository::open::{OpenError, SecretFileError};

impl CommandPolicy for KeysError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            KeysError::Open(OpenError::Secret { error: SecretFileError::Io(error), .. })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                failed("name an existing file: write the passphrase into it first. Only --new-key-file creates a file.")
            }
            KeysError::Open(error) => error.policy(),
            KeysError::Store(error) => error.policy(),
            KeysError::Put(error) => error.policy(),
            KeysError::Journal(error) => error.policy(),
            KeysError::Append(error) => error.policy(),
            KeysError::Operate(error) => error.policy(),
            KeysError::Superseded { .. } => {
                failed("put the new key where the config says, or name it with --key-file.")
            }
            KeysError::Plan(RotatePlanError::Unaccounted(_)) => failed(
                "name the file of each key that is to stay with --keep-key-file or --keep-passphrase-file, and each \
                 other key with --drop KEY.",
            ),
            KeysError::NotInPlace(_) => failed("find out who changed it, and run it again with the same files."),
            KeysError::Overtaken(_) => hinted(
                ExitKind::Fenced,
                "nothing was changed. Put the new key where the config says, and run it again only if another one is wanted.",
            ),
            KeysError::NotAtHand(_) => hinted(
                ExitKind::Fenced,
                "if the other rotation is still running, wait for it. Otherwise run it again with the file of the \
                 first try as --new-key-file or --new-passphrase-file, or name a file that it kept with \
                 --keep-key-file or --keep-passphrase-file. Nothing else opens what is written under the new key. \
                 The key in use still opens earlier backups: 'runner restore ROLE --snapshot ID'.",
            ),
            KeysError::TooManySlots(_) => failed(
                "find out who writes to the store, and delete the slots that are not yours ('runner key list ROLE' says which one is this \
                 key's).",
            ),
            KeysError::InUse => failed(
                "name a file that does not exist yet: a new key is made in it. A key that stays is named with \
                 --keep-key-file or --keep-passphrase-file.",
            ),
            KeysError::OpensNothing(_) => {
                failed("name a file that opens the repository now; a new key is named with --new-key-file.")
            }
            KeysError::Last(_) => failed("add another key first: runner key add ROLE --new-key-file FILE"),
            KeysError::Own(_) => failed("run it with the key that is to stay: in the config, or by --key-file."),
            KeysError::Denied { .. } => failed("use credentials that may delete there."),
            KeysError::ExportedKey(_) => failed("name a file that does not exist yet: a new key is made in it."),
            KeysError::File { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                failed("make it first (mkdir), or name another file.")
            }
            KeysError::File { .. } => failed("name a file that does not exist yet, where this user may write."),
            KeysError::NotEncrypted
            | KeysError::AlreadyThere { .. }
            | KeysError::NoSuchKey { .. }
            | KeysError::Plan(_)
            | KeysError::TooManyGenerations => PLAIN,
        }
    }
}
