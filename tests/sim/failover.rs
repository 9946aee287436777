//! How long the roles of a dead daemon wait for the other one, in virtual time: as long for fifty as for one, and no longer than when each
//! role had a lease of its own.

use std::time::Duration;

use runner::config::LeaseKind;
use runner::role::lease::keep_alive;

use crate::costs::IdlePair;

/// The default length of a lease.
const TTL: Duration = Duration::from_mins(1);

/// What the requests on the way take.
const REQUESTS: Duration = Duration::from_secs(2);

/// From the death of the first one until the second has the leases of all roles.
fn followed(roles: usize, killed: Duration) -> Duration {
    let pair = IdlePair::new(roles, LeaseKind::Bucket);
    pair.world.run_until(killed);
    assert!((0..roles).all(|role| pair.has_lease(role, 1)), "the first one has them");
    pair.world.kill(1);
    let mut next = 0;
    let taken = pair.world.run_while(TTL * 5, || {
        while next < roles && pair.has_lease(next, 2) {
            next += 1;
        }
        next < roles
    });
    assert!(taken, "{next} of {roles} were taken");
    pair.world.now().saturating_sub(killed)
}

#[test]
fn fifty_roles_of_a_dead_daemon_are_followed_as_fast_as_one() {
    for roles in [1, 50] {
        for second in [0, 7, 14] {
            let took = followed(roles, Duration::from_mins(10) + Duration::from_secs(second));
            // It was renewed at most a third of the lease before, seen within one look, waited out, and found over at the next look.
            let most = TTL + keep_alive::retry_pause(TTL) * 2 + REQUESTS;
            assert!((TTL * 2 / 3..most).contains(&took), "{roles} roles: {took:?}");
            println!("{roles} roles: {took:?}");
        }
    }
}
