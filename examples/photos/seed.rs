//! The library: users, photos, and one original on disk, generated from counters so that every run sees the same data.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sqlx::ConnectOptions as _;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::Problem;

/// What was seeded.
pub(crate) struct Library {
    /// For every page.
    pub(crate) pool: SqlitePool,
    /// For pages that compete with the nightly statistics. It is small on purpose.
    pub(crate) small_pool: SqlitePool,
    /// A photo as the camera wrote it.
    pub(crate) original: PathBuf,
}

/// The photo whose tags nobody checked: see `is_valid_tag`.
pub(crate) const TAGGED_PHOTO: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE photos (
        id INTEGER PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id),
        file_name TEXT NOT NULL,
        camera TEXT NOT NULL,
        taken_at INTEGER NOT NULL
    );
    CREATE TABLE tags (photo_id INTEGER NOT NULL REFERENCES photos (id), tag TEXT NOT NULL);
";

const USERS: &str = "
    WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < ?)
    INSERT INTO users SELECT n, 'user-' || n FROM counter
";

/// The multiplier is prime and spreads photos evenly over users.
const PHOTOS: &str = "
    WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < ?)
    INSERT INTO photos
    SELECT n, 1 + (n * 7919) % ?, printf('IMG_%07d.jpg', n),
        CASE n % 5 WHEN 0 THEN 'Leica M6' WHEN 1 THEN 'Nikon FM2' WHEN 2 THEN 'Olympus XA' WHEN 3 THEN 'Rolleiflex 2.8F'
            ELSE 'Canon AE-1' END,
        1500000000 + n * 61
    FROM counter
";

/// There is no index on `camera`, which is why `find_by_camera` is slow.
const INDEXES: &str = "CREATE INDEX photos_user ON photos (user_id); CREATE INDEX tags_photo ON tags (photo_id);";

pub(crate) async fn create(folder: &Path, users: i64, photos: i64) -> Result<Library, Problem> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("photos.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A database that is deleted with the process need not survive a power cut.
        .synchronous(SqliteSynchronous::Off)
        // sqlx would warn of every slow statement. Finding those is heeler's job here.
        .disable_statement_logging();

    let pool = SqlitePoolOptions::new()
        .max_connections(16)
        .min_connections(4)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
    sqlx::query(USERS).bind(users).execute(&mut *transaction).await?;
    sqlx::query(PHOTOS).bind(photos).bind(users).execute(&mut *transaction).await?;
    sqlx::raw_sql(INDEXES).execute(&mut *transaction).await?;
    transaction.commit().await?;

    let small_pool = SqlitePoolOptions::new().max_connections(2).min_connections(2).connect_with(options).await?;
    // A pool opens its connections in the background. These two must be there before the first request.
    let _ = futures::try_join!(small_pool.acquire(), small_pool.acquire())?;

    let original = folder.join("IMG_0000001.jpg");
    write_original(&original)?;
    Ok(Library { pool, small_pool, original })
}

/// Adds tags to a photo, unchecked: they came in through the import of an old library.
pub(crate) async fn add_tags(pool: &SqlitePool, photo: i64, tags: &[&str]) -> Result<(), Problem> {
    for tag in tags {
        sqlx::query("INSERT INTO tags VALUES (?, ?)").bind(photo).bind(*tag).execute(pool).await?;
    }
    Ok(())
}

/// The start of a JPEG with Exif data, and 4 MB of nothing.
fn write_original(path: &Path) -> io::Result<()> {
    let mut bytes = b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00MM\x00\x2a".to_vec();
    bytes.resize(4 << 20, 0);
    fs::write(path, bytes)
}
