use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::*;

const DAY: i64 = 86_400;
const ROTATE: i64 = 30 * DAY;

fn settings(folder: &Path) -> Assertion {
    Assertion { issuer: "vestibule".to_owned(), keys: folder.join("data/keys"), rotate: Duration::from_secs(ROTATE.unsigned_abs()) }
}

fn pem() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

fn name(from: i64) -> String {
    format!("{}.pem", Timestamp::from_second(from).unwrap().strftime(NAME))
}

fn put(folder: &Path, name: &str) -> String {
    fs::create_dir_all(folder).unwrap();
    let pem = pem();
    fs::write(folder.join(name), &pem).unwrap();
    Signer::from_pem(pem.as_bytes()).unwrap().kid().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A look at a moment: who signs, and who is published in which order.
fn at(settings: &Assertion, now: i64) -> (String, Vec<String>, Option<i64>) {
    let (_, _, keys) = look(settings, &Seen::new(), now).unwrap();
    let set: serde_json::Value = serde_json::from_slice(&keys.jwks).unwrap();
    let kids = set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
    (keys.signer.kid().to_owned(), kids.collect(), keys.due)
}

#[test]
fn the_first_key_is_made_for_its_owner_alone_and_signs_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    check(&settings).unwrap();
    assert!(!settings.keys.exists(), "a check makes nothing");
    let (keys, looked) = KeyFolder::open(&settings).unwrap();
    assert_eq!((looked.made, looked.retired), (1, 0));
    assert_eq!(mode(&settings.keys), 0o700);
    let made = names(&settings.keys);
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(mode(&settings.keys.join(&made[0])), 0o600);
    assert!(began(made[0].strip_suffix(".pem").unwrap()).is_some_and(|from| from <= now() && now() - from < 2 * STEP));
    let before = keys.keys.load_full();
    assert_eq!(keys.look().unwrap().made, 0);
    assert!(Arc::ptr_eq(&before, &keys.keys.load()), "nothing changed");
    let (again, looked) = KeyFolder::open(&settings).unwrap();
    assert_eq!((looked.made, again.keys.load().signer.kid()), (0, before.signer.kid()), "after a restart the same");
}

#[test]
fn a_key_is_known_before_it_signs_and_long_after() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let begin = 1_800_000_000 / STEP * STEP;
    let (first, published, due) = at(&settings, begin + 1);
    assert_eq!((published.as_slice(), due), (&[first.clone()][..], Some(begin + ROTATE)));
    // A tenth of its time ahead.
    assert_eq!(at(&settings, begin + ROTATE - ROTATE / 10 - 61).1.len(), 1);
    let (signs, published, _) = at(&settings, begin + ROTATE - ROTATE / 10);
    assert_eq!((published.len(), &signs), (2, &first), "published, and does not sign");
    assert_eq!(names(&settings.keys)[1], name(begin + ROTATE));
    let second = published[1].clone();
    assert_eq!(at(&settings, begin + ROTATE - 1).0, first);
    let (signs, published, due) = at(&settings, begin + ROTATE);
    assert_eq!((&signs, due), (&second, Some(begin + 2 * ROTATE)));
    assert_eq!(published, [first.clone(), second.clone()], "what the first signed is valid still");
    // Five minutes of validity, ten more, and five for clocks.
    assert_eq!(at(&settings, begin + ROTATE + 1199).1, [first, second.clone()]);
    assert_eq!(at(&settings, begin + ROTATE + 1200).1, [second]);
    assert_eq!(names(&settings.keys), [name(begin + ROTATE)]);
}

#[test]
fn however_short_the_rotation_a_key_is_known_ten_minutes_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Assertion { rotate: Duration::from_secs(3600), ..settings(folder.path()) };
    let begin = 1_800_000_000 / STEP * STEP;
    let mut published: HashMap<String, i64> = HashMap::new();
    let mut last = String::new();
    for now in (begin..begin + 5 * 3600).step_by(7) {
        let (signs, kids, _) = at(&settings, now);
        let known = published.clone();
        for kid in &kids {
            published.entry(kid.clone()).or_insert(now);
        }
        assert!(kids.contains(&signs) && kids.len() <= 3, "{kids:?}");
        if signs != last && !last.is_empty() {
            assert!(now - known[&signs] >= 600, "known for {} s", now - known[&signs]);
            assert!(kids.contains(&last));
        }
        last = signs;
    }
    assert_eq!(published.len(), 6);
}

#[test]
fn a_proxy_that_slept_publishes_before_it_signs() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let begin = 1_800_000_000 / STEP * STEP;
    let (first, ..) = at(&settings, begin);
    let late = begin + 10 * ROTATE + 77;
    let (signs, published, due) = at(&settings, late);
    assert_eq!((&signs, published.len(), due), (&first, 2, Some(begin + ROTATE)), "overdue, and says so");
    let next = began(names(&settings.keys)[1].strip_suffix(".pem").unwrap()).unwrap();
    assert!(next - late >= ROTATE / 10 && next - late <= ROTATE / 10 + STEP && next % STEP == 0, "{}", next - late);
    assert_eq!(at(&settings, late + 1).1.len(), 2, "one is enough");
    assert_eq!(at(&settings, next).0, published[1]);
}

#[test]
fn clocks_that_jump_leave_somebody_to_sign() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let begin = 1_800_000_000 / STEP * STEP;
    let (first, ..) = at(&settings, begin);
    // Years back: the first signs on.
    let (signs, published, _) = at(&settings, begin - 1000 * DAY);
    assert!(published.contains(&first) && published.contains(&signs));
    // Years ahead, and back again: rotation goes on by the clock that is right.
    let wrong = begin + 5000 * DAY;
    at(&settings, wrong);
    let (_, _, due) = at(&settings, begin + DAY);
    assert!(due.is_some_and(|due| due <= begin + ROTATE), "{due:?}");
    at(&settings, begin + ROTATE - ROTATE / 10);
    let (signs, published, due) = at(&settings, begin + ROTATE);
    assert!(published.contains(&signs) && due.is_some_and(|due| due > begin + ROTATE && due <= begin + 3 * ROTATE), "{due:?}");
}

#[test]
fn proxies_that_begin_together_make_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let begin = 1_800_000_000 / STEP * STEP;
    let kids: Vec<(String, u64)> = thread::scope(|scope| {
        let open = || {
            let (_, looked, keys) = look(&settings, &Seen::new(), begin + 5).unwrap();
            (keys.signer.kid().to_owned(), looked.made)
        };
        let proxies: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
        proxies.into_iter().map(|proxy| proxy.join().unwrap()).collect()
    });
    assert!(kids.iter().all(|(kid, _)| *kid == kids[0].0), "{kids:?}");
    assert_eq!(kids.iter().map(|(_, made)| made).sum::<u64>(), 1);
    assert_eq!(names(&settings.keys), [name(begin)], "no draft is left behind");
}

#[test]
fn keys_of_somebody_else_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let begin = 1_800_000_000;
    let old = put(&settings.keys, &name(begin - 100 * DAY));
    let mine = put(&settings.keys, "mine.pem");
    let file = File::open(settings.keys.join("mine.pem")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(begin - DAY).unwrap())).unwrap();
    for other in ["README", ".hidden.pem", "mine.pub"] {
        fs::write(settings.keys.join(other), "no key").unwrap();
    }
    let all = names(&settings.keys);
    assert_eq!(at(&settings, begin), (mine.clone(), vec![old.clone(), mine.clone()], None), "the newest signs");
    assert_eq!(at(&settings, begin + 1000 * DAY), (mine.clone(), vec![old, mine], None));
    assert_eq!(names(&settings.keys), all);
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_whichever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let (keys, _) = KeyFolder::open(&settings).unwrap();
    let before = keys.keys.load_full();
    let bad = settings.keys.join(name(0));
    let half = &pem()[..100];
    for (text, why) in [("", "expected a P-256 private key in PEM"), (half, "PKCS#8")] {
        fs::write(&bad, text).unwrap();
        for error in [keys.look().unwrap_err(), KeyFolder::open(&settings).unwrap_err(), check(&settings).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(&name(0)) && text.contains(why), "{text}");
        }
        assert!(Arc::ptr_eq(&before, &keys.keys.load()), "as before");
    }
    fs::remove_file(&bad).unwrap();
    std::os::unix::fs::symlink("/nowhere", &bad).unwrap();
    assert!(keys.look().is_err(), "a link to nothing");
    fs::remove_file(&bad).unwrap();
    fs::create_dir(&bad).unwrap();
    assert!(keys.look().unwrap_err().to_string().contains("not a regular file"));
    fs::remove_dir(&bad).unwrap();
    keys.look().unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), "a file").unwrap();
    let settings = settings(folder.path());
    for error in [KeyFolder::open(&settings).unwrap_err(), check(&settings).unwrap_err()] {
        assert!(error.to_string().contains("data/keys: Not a directory"), "{error}");
    }
    fs::remove_file(folder.path().join("data")).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.path().join("data")).unwrap();
    KeyFolder::open(&settings).unwrap_err();
    let error = check(&settings).unwrap_err().to_string();
    assert!(error.contains("none can be made") && error.contains("data: No such file"), "a link to nothing: {error}");
}

#[test]
fn what_is_far_too_much_for_a_folder_of_keys_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let kid = put(&settings.keys, "one.pem");
    // One key in a thousand files is one key.
    for n in 1..MOST {
        fs::hard_link(settings.keys.join("one.pem"), settings.keys.join(format!("{n}.pem"))).unwrap();
    }
    assert_eq!(at(&settings, now()), (kid.clone(), vec![kid], None));
    fs::hard_link(settings.keys.join("one.pem"), settings.keys.join("more.pem")).unwrap();
    let error = check(&settings).unwrap_err().to_string();
    assert!(error.contains("more than 1000 keys"), "{error}");
    // A key behind as much text as no key has is not looked for.
    for (name, before, sound) in [("short", 100, true), ("long", LARGEST, false)] {
        let settings = Assertion { keys: folder.path().join(name), ..settings.clone() };
        fs::create_dir(&settings.keys).unwrap();
        fs::write(settings.keys.join("one.pem"), format!("{}\n{}", "#".repeat(usize::try_from(before).unwrap()), pem())).unwrap();
        assert_eq!(check(&settings).is_ok(), sound, "{name}");
    }
}
