use super::*;
use crate::posture::edit::Voice;
use crate::posture::values::By;

const PATIENCE: Duration = Duration::from_millis(50);

fn opened(path: &Path) -> Sqlite {
    Sqlite::open(path, Access::Create, Duration::from_secs(5)).unwrap()
}

fn refused(path: &Path, access: Access) -> String {
    let error = Sqlite::open(path, access, PATIENCE).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "names the file: {text}");
    text
}

fn add(store: &mut Sqlite, id: &str) -> Result<Written, Error> {
    let how = Writing { by: &By::new("ada").unwrap(), now: values::now(), voice: Voice::Person, absent: Absent::Add };
    store.write(&[Edit::new(id).unwrap()], how)
}

#[test]
fn created_with_its_directory_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/devices.db");
    assert!(refused(&path, Access::Write).ends_with("there is no such file"));
    assert!(!path.exists());
    let mut store = opened(&path);
    add(&mut store, "a").unwrap();
    for name in ["devices.db", "devices.db-wal"] {
        assert_eq!(fs::metadata(path.with_file_name(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn files_that_are_no_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(folder.path(), Access::Create).contains("directory"));

    let text = folder.path().join("text.db");
    fs::write(&text, "hello ".repeat(1000)).unwrap();
    assert!(refused(&text, Access::Create).contains("not a SQLite database"));
    assert_eq!(fs::read(&text).unwrap().len(), 6000, "left as it was");

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(refused(&foreign, Access::Create).contains("is not a device store"));

    let empty = folder.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    assert!(refused(&empty, Access::Write).contains("is not a device store"));
    opened(&empty);

    assert!(refused(Path::new("/proc/vestibule/devices.db"), Access::Create).contains("cannot be created"));
    assert!(refused(&text.join("devices.db"), Access::Create).contains("cannot be created"));
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    opened(&path).sql.pragma_update(None, "user_version", 7).unwrap();
    assert!(refused(&path, Access::Write).contains("newer vestibule (schema 7; this one knows 3)"));
    assert!(refused(&path, Access::Read).contains("newer vestibule"));
}

#[test]
fn a_store_of_the_schema_before_is_read_as_it_is_and_migrated_by_whoever_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    {
        // As the version before left it.
        let sql = Connection::open(&path).unwrap();
        sql.execute_batch(MIGRATIONS[0]).unwrap();
        sql.execute_batch(
            "UPDATE head SET seq = 1;
             INSERT INTO device (id, tags, state, state_by, state_at, created_at, updated_at, seq)
             VALUES ('a', '[]', 'approved', 'ada', '2026-11-22T08:00:00.000Z', '2026-11-22T08:00:00.000Z', '2026-11-22T08:00:00.000Z', 1)",
        )
        .unwrap();
        sql.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        sql.pragma_update(None, "user_version", 1).unwrap();
    }
    let store = crate::posture::store::Store::open(&path, Access::Read, PATIENCE).unwrap();
    assert!(store.device("a").unwrap().is_some());
    assert_eq!((store.memory().unwrap(), store.remembered_of("a").unwrap()), (None, None));
    assert!(store.blind().unwrap().is_empty() && store.drifting().unwrap().is_empty());
    let first = crate::posture::store::Store::open(&path, Access::Write, PATIENCE).unwrap().memory().unwrap().unwrap();
    assert_ne!(first.key, [0; 32]);
    let again = crate::posture::store::Store::open(&path, Access::Write, PATIENCE).unwrap();
    assert_eq!(again.memory().unwrap(), Some(first), "migrated once");
    assert_eq!((again.device("a").unwrap().unwrap().seq, again.head().unwrap().seq), (1, 1));
    assert!(store.remembered_of("a").unwrap().is_none() && store.memory().unwrap().is_some(), "the reader sees it too");
}

#[test]
fn every_older_schema_becomes_the_newest_and_loses_nothing() {
    for old in 1..MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.db");
        let sql = Connection::open(&path).unwrap();
        MIGRATIONS.iter().take(old).for_each(|migration| sql.execute_batch(migration).unwrap());
        sql.execute_batch(
            "UPDATE head SET seq = 1;
             INSERT INTO device (id, tags, state, state_by, state_at, created_at, updated_at, seq)
             VALUES ('a', '[]', 'approved', 'ada', '2026-11-22T08:00:00.000Z', '2026-11-22T08:00:00.000Z', '2026-11-22T08:00:00.000Z', 1)",
        )
        .unwrap();
        sql.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        sql.pragma_update(None, "user_version", i64::try_from(old).unwrap()).unwrap();
        let open = |access| crate::posture::store::Store::open(&path, access, PATIENCE).unwrap();
        let reader = open(Access::Read);
        assert!(reader.device("a").unwrap().is_some(), "{old}: read as it is");
        assert_eq!((reader.revisions(9).unwrap(), reader.revision("").unwrap()), (vec![], None), "{old}: no policy is known");
        let mut writer = open(Access::Write);
        let at = "2026-11-22T08:00:00Z".parse().unwrap();
        let (revision, how, version) = ("ab".to_owned(), "start".to_owned(), "1".to_owned());
        let texts = crate::config::Texts(vec![("v.yaml".to_owned(), "version: 1".to_owned())]);
        let policy = crate::posture::store::Revision { revision, at, how, version, changed: None, texts };
        writer.add_revision(&policy).unwrap();
        assert!(writer.device("a").unwrap().is_some() && writer.memory().unwrap().is_some(), "{old}");
        assert_eq!(reader.revision("a").unwrap(), Some(policy), "{old}: the reader sees it too");
        let schema: i64 = sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(schema, 3, "{old}");
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let mut store = opened(&path);
    (0..500).for_each(|n| drop(add(&mut store, &format!("device-{n}")).unwrap()));
    drop(store);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, whole.get(..whole.len() / 2).unwrap()).unwrap();
    assert!(refused(&path, Access::Read).contains("damaged"));
    let mut garbled = whole;
    garbled.iter_mut().skip(8192).for_each(|byte| *byte = 0x5a);
    fs::write(&path, garbled).unwrap();
    assert!(refused(&path, Access::Write).contains("damaged"));
}

#[test]
fn a_locked_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let holder = opened(&path);
    let mut store = Sqlite::open(&path, Access::Write, PATIENCE).unwrap();
    let lock = Transaction::new_unchecked(&holder.sql, TransactionBehavior::Immediate).unwrap();
    let error = add(&mut store, "a").unwrap_err();
    assert!(matches!(error, Error::Busy { .. }) && error.to_string().ends_with("another process holds the lock; try again"), "{error}");
    assert_eq!(store.device("a").unwrap(), None, "readers do not wait");
    drop(lock);
    add(&mut store, "a").unwrap();
}

#[test]
fn an_acknowledged_change_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let mut store = opened(&path);
    add(&mut store, "a").unwrap();
    assert_eq!(store.pragma("synchronous").unwrap(), 2, "FULL");
    // What a kill leaves: the files as they are, nobody having closed them.
    let copy = folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    assert!(opened(&copy).device("a").unwrap().is_some());
}

#[test]
fn many_create_one_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || add(&mut opened(path), &format!("device-{n}")).unwrap());
        }
    });
    let store = opened(&path);
    assert_eq!((store.list(&Filter::default()).unwrap().len(), store.head().unwrap().seq), (8, 8));
}

#[test]
fn a_record_that_was_broken_by_hand_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = opened(&folder.path().join("devices.db"));
    add(&mut store, "a").unwrap();
    store.sql.execute_batch("UPDATE device SET state = 'aproved'").unwrap();
    let error = store.device("a").unwrap_err().to_string();
    assert!(error.contains("device `a`: state: found `aproved`"), "{error}");
}

#[test]
fn the_log_of_a_replaced_file_is_not_taken_for_the_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("devices.db"), folder.path().join("backup.db"));
    let mut old = opened(&backup);
    add(&mut old, "from-backup").unwrap();
    drop(old);
    let mut store = opened(&path);
    (0..50).for_each(|n| drop(add(&mut store, &format!("device-{n}")).unwrap()));
    fs::rename(&backup, &path).unwrap();
    assert!(matches!(store.version(), Err(Error::Replaced { .. })));
    let left = store.left().unwrap();
    drop(store);
    left.set_aside(&path);
    let ids: Vec<String> = opened(&path).list(&Filter::default()).unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(ids, ["from-backup"]);
}

/// Most of a store is read when somebody asks for it, and that may be days after its damage.
#[test]
fn damage_where_nobody_has_looked_yet_is_found_when_the_store_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.db");
    let mut store = opened(&path);
    for number in 0..300 {
        add(&mut store, &format!("device-{number:03}")).unwrap();
    }
    let page: usize = store.pragma("page_size").unwrap().try_into().unwrap();
    store.sql.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let held = |page: &[u8]| page.windows(10).any(|text| text == b"device-150");
    let at = bytes.chunks(page).position(held).unwrap();
    // The page says that it is of no kind that there is.
    bytes[at * page] = 0xa5;
    fs::write(&path, bytes).unwrap();
    for access in [Access::Read, Access::Write, Access::Create] {
        assert!(refused(&path, access).contains("damaged"), "{access:?}");
    }
}
