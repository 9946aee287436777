//! Scenarios through the whole audit, with listings made by a small deterministic generator.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, date};

use super::*;
use crate::foreign::civil_time::seconds;
use crate::foreign::listing::{ListedObject, VersionColumn};
use crate::foreign::report::{FindingConfidence, ForeignFinding, ForeignFindingKind, ForeignNote};

use ForeignFindingKind::{Empty, Frozen, Missed, Overwritten, Shrunk, Stereo, Stopped, TwoChains};

const START: Date = date(2026, 3, 2);
const MEGABYTE: u64 = 1_000_000;

/// A listing in the making, and a linear congruential generator for what varies in it.
struct ListingMaker {
    listing: BucketListing,
    state: u64,
}

impl ListingMaker {
    fn new() -> Self {
        Self { listing: BucketListing::default(), state: 20_260_302 }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    /// Sizes of one content, day by day: it grows a little, and by another amount each day.
    fn sizes(&mut self, first: u64, days: usize) -> Vec<u64> {
        let mut size = first;
        let mut next = || {
            size = size + self.random(first / 50) - first / 120;
            size
        };
        (0..days).map(|_| next()).collect()
    }

    /// The same content packed by another host: a few bytes more or less.
    fn packed_again(&mut self, size: u64) -> u64 {
        size + self.random(size / 5_000 + 2)
    }

    fn put(&mut self, key: &str, size: u64, at: DateTime) {
        self.listing.push(key, ListedObject { size, modified: seconds(at), is_latest: true });
    }

    /// One key for each day that is named, written at one in the morning.
    fn put_days(&mut self, sizes: &[u64], has: impl Fn(usize) -> bool, key: impl Fn(Date) -> String) {
        for (day, size) in sizes.iter().enumerate().filter(|(day, _)| has(*day)) {
            let minute = self.random(20) as i8;
            self.put(&key(on(day)), *size, on(day).at(1, minute, 0, 0));
        }
    }

    fn audit(&self) -> ForeignAudit {
        audit(&self.listing, &ForeignAuditOptions::default())
    }
}

fn on(day: usize) -> Date {
    START + (day as i64).days()
}

fn sick(audit: &ForeignAudit) -> Vec<&ForeignFinding> {
    audit.findings.iter().filter(|found| found.confidence >= FindingConfidence::Likely).collect()
}

fn kinds(audit: &ForeignAudit) -> Vec<ForeignFindingKind> {
    sick(audit).into_iter().map(|found| found.kind).collect()
}

#[track_caller]
fn one(audit: &ForeignAudit, kind: ForeignFindingKind) -> &ForeignFinding {
    assert_eq!(kinds(audit), [kind], "{:#?}", audit.findings);
    sick(audit)[0]
}

#[track_caller]
fn assert_clean(audit: &ForeignAudit) {
    assert!(audit.findings.is_empty(), "{:#?}", audit.findings);
    assert!(!audit.series.is_empty(), "nothing was judged: {audit:#?}");
}

#[test]
fn nothing_is_listed() {
    assert_eq!(ListingMaker::new().audit(), ForeignAudit::default());
}

#[test]
fn two_hosts_store_since_a_day() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(800 * MEGABYTE, 60);
    maker.put_days(&sizes, |_| true, |day| format!("app/app01/app01-{day}.tar.gz"));
    let again: Vec<u64> = sizes.iter().map(|size| maker.packed_again(*size)).collect();
    maker.put_days(&again, |day| day >= 20, |day| format!("app/app02/app02-{day}.tar.gz"));
    let audit = maker.audit();
    let found = one(&audit, Stereo);
    assert_eq!(found.hosts, ["app01", "app02"]);
    assert_eq!((found.since, found.until, found.slots), (Some(on(20)), None, 40));
    let surplus = found.surplus.unwrap();
    assert_eq!((surplus.min, surplus.max), (sizes[20..].iter().sum(), again[20..].iter().sum()));
}

#[test]
fn two_roles_with_twin_names_hold_different_things() {
    let mut maker = ListingMaker::new();
    for (name, first) in [("db1", 5_000 * MEGABYTE), ("db2", 210 * MEGABYTE)] {
        let sizes = maker.sizes(first, 60);
        maker.put_days(&sizes, |_| true, |day| format!("nightly/{name}/{name}-{day}.tar.zst"));
    }
    assert_clean(&maker.audit());
}

/// One host until day 30 and another one since `day`.
fn failover(day: usize) -> ForeignAudit {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(640 * MEGABYTE, 60);
    maker.put_days(&sizes, |at| at < 30, |at| format!("files/node-a/{at}/data.tar.gz"));
    maker.put_days(&sizes, |at| at >= day, |at| format!("files/node-b/{at}/data.tar.gz"));
    maker.audit()
}

#[test]
fn a_failover_is_a_note_and_a_hole_in_it_is_missed() {
    let audit = failover(30);
    assert_clean(&audit);
    let moved = |note: &ForeignNote| matches!(note, ForeignNote::Moved { on: day, .. } if *day == on(30));
    assert!(audit.notes.iter().any(moved), "{:?}", audit.notes);
    let audit = failover(33);
    let found = one(&audit, Missed);
    assert_eq!((found.since, found.slots), (Some(on(30)), 3));
    let missed: Vec<Date> = found.missed.iter().map(|slot| slot.date()).collect();
    assert_eq!(missed, [on(30), on(31), on(32)]);
}

#[test]
fn missed_nights_are_named() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(77 * MEGABYTE, 60);
    maker.put_days(&sizes, |day| ![9, 10, 45].contains(&day), |day| format!("mysql/shop-{day}.sql.gz"));
    let audit = maker.audit();
    let found = one(&audit, Missed);
    let missed: Vec<Date> = found.missed.iter().map(|slot| slot.date()).collect();
    assert_eq!((missed, found.slots), (vec![on(9), on(10), on(45)], 3));
}

#[test]
fn weekdays_only_is_a_rhythm() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(77 * MEGABYTE, 82);
    maker.put_days(&sizes, |day| day % 7 < 5, |day| format!("office/files-{day}.zip"));
    assert_clean(&maker.audit());
}

#[test]
fn what_is_thinned_by_age_is_not_missed() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(900 * MEGABYTE, 180);
    let kept = |day: usize| {
        day >= 166 || day >= 120 && on(day).weekday() == jiff::civil::Weekday::Sunday || on(day).day() == 1
    };
    maker.put_days(&sizes, kept, |day| format!("shop/shop-{day}.sql.gz"));
    assert_clean(&maker.audit());
}

#[test]
fn one_role_stopped_while_others_go_on() {
    let mut maker = ListingMaker::new();
    for (name, first) in [("crm", 600 * MEGABYTE), ("mail", 3_000 * MEGABYTE), ("wiki", 45 * MEGABYTE)] {
        let sizes = maker.sizes(first, 50);
        maker.put_days(&sizes, |day| name != "mail" || day < 41, |day| format!("prod/{name}/{name}-{day}.tgz"));
    }
    let audit = maker.audit();
    let found = one(&audit, Stopped);
    // Nine are not there; the one of the newest night may still be on its way.
    assert_eq!((found.series.contains("mail"), found.since, found.slots), (true, Some(on(41)), 8));
}

#[test]
fn a_size_that_varied_is_frozen() {
    let mut maker = ListingMaker::new();
    let mut sizes = maker.sizes(420 * MEGABYTE, 60);
    sizes[40..].fill(8_312_004);
    maker.put_days(&sizes, |_| true, |day| format!("srv/backup-{day}.tar.gz"));
    let audit = maker.audit();
    let found = one(&audit, Frozen);
    assert_eq!((found.since, found.slots), (Some(on(40)), 20));
    assert_eq!(found.sizes.map(|(_, size)| size), Some(8_312_004));
}

#[test]
fn a_size_that_never_varied_is_not_frozen() {
    let mut maker = ListingMaker::new();
    maker.put_days(&[10_485_760; 60], |_| true, |day| format!("raw/volume-{day}.img"));
    assert_clean(&maker.audit());
}

#[test]
fn archives_without_content_are_empty() {
    let mut maker = ListingMaker::new();
    let mut sizes = maker.sizes(77 * MEGABYTE, 60);
    sizes[52..].fill(20);
    maker.put_days(&sizes, |_| true, |day| format!("pg/shop-{day}.sql.gz"));
    let audit = maker.audit();
    let found = sick(&audit).into_iter().find(|found| found.kind == Empty).unwrap();
    assert_eq!((found.since, found.slots), (Some(on(52)), 8));
}

#[test]
fn half_of_the_content_is_lost() {
    let mut maker = ListingMaker::new();
    let mut sizes = maker.sizes(900 * MEGABYTE, 60);
    for size in &mut sizes[45..] {
        *size /= 5;
    }
    maker.put_days(&sizes, |_| true, |day| format!("srv/home-{day}.tar.gz"));
    let audit = maker.audit();
    assert_eq!(one(&audit, Shrunk).since, Some(on(45)));
}

#[test]
fn a_cycle_of_full_and_incremental_backups_is_healthy() {
    let mut maker = ListingMaker::new();
    let full = maker.sizes(4_000 * MEGABYTE, 70);
    let increments = maker.sizes(90 * MEGABYTE, 70);
    let sizes: Vec<u64> = (0..70).map(|day| if day % 7 == 0 { full[day] } else { increments[day] }).collect();
    maker.put_days(&sizes, |_| true, |day| format!("srv/home-{day}.tar.gz"));
    assert_clean(&maker.audit());
}

/// What Kubernetes appends to the name of a pod. The first character is a digit, if it has to be.
fn pod_suffix(maker: &mut ListingMaker, begins_with_digit: bool) -> String {
    let mut letter = |from: &[u8]| char::from(from[maker.random(from.len() as u64) as usize]);
    let all = b"bcdfghjklmnpqrstvwxz2456789";
    let first = letter(if begins_with_digit { b"2456789" } else { all });
    std::iter::once(first).chain((0..4).map(|_| letter(all))).collect()
}

#[test]
fn pods_with_random_suffixes_store_twice() {
    for has_job_number in [true, false] {
        let mut maker = ListingMaker::new();
        let sizes = maker.sizes(310 * MEGABYTE, 40);
        for (day, size) in sizes.iter().enumerate() {
            let at = on(day).at(1, 0, 0, 0);
            for second in 0..2 {
                let suffix = pod_suffix(&mut maker, !has_job_number);
                let number = if has_job_number { format!("-{}", seconds(at) / 60) } else { String::new() };
                let size = maker.packed_again(*size);
                let key = format!("gitlab/{}-gitlab-backup{number}-{suffix}.tar", on(day));
                maker.put(&key, size, at + (4 * second).seconds());
            }
        }
        let audit = maker.audit();
        let found = one(&audit, Stereo);
        assert_eq!((found.hosts.len(), found.since, found.slots), (0, Some(on(0)), 40), "{has_job_number}");
    }
}

#[test]
fn milliseconds_since_1970_are_a_time() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(50 * MEGABYTE, 50);
    let has = |day| day != 20;
    maker.put_days(&sizes, has, |day| format!("events/dump-{}123.json.gz", seconds(day.at(1, 0, 0, 0))));
    let audit = maker.audit();
    let found = one(&audit, Missed);
    assert_eq!((found.since, found.slots), (Some(on(20)), 1));
}

#[test]
fn day_and_month_are_told_apart() {
    for format in ["%d-%m-%Y", "%m-%d-%Y"] {
        let mut maker = ListingMaker::new();
        let sizes = maker.sizes(50 * MEGABYTE, 75);
        maker.put_days(&sizes, |day| day != 40, |day| format!("shop_{}.zip", day.strftime(format)));
        let audit = maker.audit();
        let found = one(&audit, Missed);
        assert_eq!((found.since, found.slots), (Some(on(40)), 1), "{format}");
    }
}

#[test]
fn a_date_may_be_split_over_directories() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(50 * MEGABYTE, 75);
    maker.put_days(&sizes, |day| day != 40, |day| day.strftime("db/%Y/%m/%d/dump.sql.gz").to_string());
    let audit = maker.audit();
    assert_eq!((one(&audit, Missed).since, one(&audit, Missed).slots), (Some(on(40)), 1));
}

#[test]
fn a_ring_of_days_of_the_month_is_healthy() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(50 * MEGABYTE, 31);
    maker.put_days(&sizes, |_| true, |day| format!("ring/dump-{:02}.sql.gz", day.day()));
    assert_clean(&maker.audit());
}

/// Two versions of a key each night; the second one has the size that `second` says.
fn versions(second: impl Fn(&mut ListingMaker, u64) -> u64) -> ForeignAudit {
    let mut maker = ListingMaker::new();
    maker.listing.versions = VersionColumn::Present;
    for (day, size) in maker.sizes(55 * MEGABYTE, 28).into_iter().enumerate() {
        let key = format!("rke/{}_etcd.zip", on(day));
        let at = on(day).at(0, 0, 4, 0);
        maker.listing.push(&key, ListedObject { size, modified: seconds(at), is_latest: false });
        let size = second(&mut maker, size);
        maker.put(&key, size, at + 2.seconds());
    }
    maker.audit()
}

#[test]
fn versions_that_are_overwritten_are_two_writers_or_two_contents() {
    let audit = versions(ListingMaker::packed_again);
    let found = one(&audit, Stereo);
    assert_eq!((found.hosts.len(), found.since, found.slots), (0, Some(on(0)), 28));
    let audit = versions(|maker, _| 2 * MEGABYTE + maker.random(9 * MEGABYTE));
    let found = one(&audit, Overwritten);
    assert_eq!((found.since, found.slots), (Some(on(0)), 28));
}

#[test]
fn a_torn_chain_of_duplicity_is_found() {
    for torn in [false, true] {
        let mut maker = ListingMaker::new();
        let stamp = |day: usize| on(day).strftime("%Y%m%dT010000Z").to_string();
        for day in 0..28 {
            let name = match day % 14 {
                0 => format!("full.{}", stamp(day)),
                // The backup that it joins is that of a day that has none.
                5 if torn => format!("inc.{}.to.{}", stamp(day + 200), stamp(day)),
                _ => format!("inc.{}.to.{}", stamp(day - 1), stamp(day)),
            };
            for (end, size) in [("manifest.gpg", 400), ("vol1.difftar.gpg", 26 * MEGABYTE)] {
                let size = maker.packed_again(size);
                maker.put(&format!("dup/duplicity-{name}.{end}"), size, on(day).at(1, 0, 9, 0));
            }
        }
        let audit = maker.audit();
        if torn {
            one(&audit, TwoChains);
        } else {
            assert_eq!(kinds(&audit), [], "{:#?}", audit.findings);
        }
    }
}

#[test]
fn a_repository_of_restic_is_no_series_of_blobs() {
    let mut maker = ListingMaker::new();
    let name = |maker: &mut ListingMaker| -> String {
        (0..64).map(|_| char::from(b"0123456789abcdef"[maker.random(16) as usize])).collect()
    };
    maker.put("backup/config", 155, on(0).at(1, 0, 0, 0));
    let id = name(&mut maker);
    maker.put(&format!("backup/keys/{id}"), 460, on(0).at(1, 0, 0, 0));
    for day in 0..40 {
        for pack in 0..6 {
            let id = name(&mut maker);
            let size = 17 * MEGABYTE + maker.random(MEGABYTE);
            maker.put(&format!("backup/data/{}/{id}", &id[..2]), size, on(day).at(1, pack, 0, 0));
        }
        for folder in ["index", "snapshots"] {
            let id = name(&mut maker);
            maker.put(&format!("backup/{folder}/{id}"), 300, on(day).at(1, 10, 0, 0));
        }
    }
    let audit = maker.audit();
    assert!(audit.findings.is_empty(), "{:#?}", audit.findings);
    let [repository] = &audit.repositories[..] else { panic!("{:#?}", audit.repositories) };
    assert_eq!((repository.program, repository.objects, repository.snapshots), ("restic", 322, Some(40)));
    assert!(audit.series.iter().all(|series| !series.name.contains("data")), "{:#?}", audit.series);
}

#[test]
fn a_temporary_file_is_left_alone() {
    let mut maker = ListingMaker::new();
    let sizes = maker.sizes(300 * MEGABYTE, 40);
    maker.put_days(&sizes, |_| true, |day| format!("srv/home-{day}.tar.gz"));
    maker.put_days(&sizes, |day| day == 17, |day| format!("srv/home-{day}.tar.gz.tmp"));
    assert_clean(&maker.audit());
}

#[test]
fn of_200_tenants_one_is_stored_twice() {
    let mut maker = ListingMaker::new();
    for tenant in 0..200_u64 {
        let first = 20 * MEGABYTE + maker.random(400 * MEGABYTE);
        let sizes = maker.sizes(first, 30);
        maker.put_days(&sizes, |_| true, |day| format!("tenants/t{tenant:03}/node1/{day}.tar.zst"));
        if tenant == 77 {
            let again: Vec<u64> = sizes.iter().map(|size| maker.packed_again(*size)).collect();
            maker.put_days(&again, |day| day >= 12, |day| format!("tenants/t{tenant:03}/node2/{day}.tar.zst"));
        }
    }
    let audit = maker.audit();
    let found = one(&audit, Stereo);
    assert_eq!(found.hosts, ["node1", "node2"]);
    assert!(found.series.contains("t077"), "{found:?}");
    assert_eq!((found.since, found.slots), (Some(on(12)), 18));
}

#[test]
fn one_listing_gives_one_report() {
    let mut maker = ListingMaker::new();
    for role in ["crm", "files", "mail", "shop", "wiki"] {
        let sizes = maker.sizes(100 * MEGABYTE, 20);
        maker.put_days(&sizes, |day| day != 9, |day| format!("{role}/{role}-{day}.sql.gz"));
        maker.put_days(&sizes, |_| true, |day| format!("{day}/{role}.tar"));
    }
    let first = maker.audit();
    assert!(!first.findings.is_empty());
    for _ in 0..20 {
        assert_eq!(maker.audit(), first);
    }
}
