//! A transaction of SQLite: rolled back, and its connection good for the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use heeler::TimeboxExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::{INTERRUPTIONS, Run, Tally, common};

const CONNECTIONS: u32 = 3;

/// How far a run came.
const BEGUN: u8 = 1;
const COMMITTING: u8 = 2;

/// Takes from one account and gives to another, with a wait in between.
async fn transfer(pool: &SqlitePool, run: &Run, stage: &AtomicU8) -> sqlx::Result<()> {
    run.before().await;
    let mut transaction = pool.begin().await?;
    stage.store(BEGUN, Ordering::Relaxed);
    let number = run.number as i64;
    sqlx::query("INSERT INTO entries VALUES (?, -7)").bind(number).execute(&mut *transaction).await?;
    run.holding().await;
    sqlx::query("INSERT INTO entries VALUES (?, 7)").bind(number).execute(&mut *transaction).await?;
    stage.store(COMMITTING, Ordering::Relaxed);
    transaction.commit().await
}

/// Guards: a transfer is made as a whole or not at all. If the work returned, it is made, and if the work was dropped before
/// its commit, it is not. After a thousand interruptions every connection of the pool can write.
#[test]
fn every_transaction_is_whole_or_rolled_back() {
    let place = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(place.path().join("accounts.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Off)
        .busy_timeout(common::PATIENCE);
    let runtime = common::runtime(2);
    runtime.block_on(async {
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await.unwrap();
        sqlx::query("CREATE TABLE entries (run INTEGER, amount INTEGER)").execute(&pool).await.unwrap();

        let (tally, runs) = (Tally::default(), Mutex::new(Vec::new()));
        let task = async || {
            while let Some(run) = tally.next() {
                let stage = AtomicU8::new(0);
                let result = transfer(&pool, &run, &stage).timebox(run.limit).await;
                if let Ok(result) = &result {
                    assert!(result.is_ok(), "{result:?}");
                }
                tally.count(&run, result.is_ok());
                runs.lock().unwrap().push((run.number as i64, result.is_ok(), stage.into_inner()));
            }
        };
        // Polled by turns on one task: SQLite has one writer at a time in any case.
        futures::future::join_all((0..4).map(|_| task())).await;
        tally.check();

        // All connections at once, each of which can write.
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(tokio::time::timeout(common::PATIENCE, pool.acquire()).await.unwrap().unwrap());
        }
        for connection in &mut connections {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut **connection).await.unwrap();
            sqlx::query("ROLLBACK").execute(&mut **connection).await.unwrap();
        }
        assert_eq!(pool.size(), CONNECTIONS);
        drop(connections);

        let (mut made, mut rolled_back) = (0, 0);
        for (number, completed, stage) in runs.into_inner().unwrap() {
            let query = sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(amount), 0) FROM entries WHERE run = ?");
            let (entries, sum): (i64, i64) = query.bind(number).fetch_one(&pool).await.unwrap();
            assert_eq!(sum, 0, "half a transfer was committed");
            match (completed, stage) {
                (true, _) => assert_eq!(entries, 2),
                // Only the database knows whether a commit that was not awaited was made.
                (false, COMMITTING) => assert!(entries == 0 || entries == 2),
                (false, _) => assert_eq!(entries, 0),
            }
            made += usize::from(entries == 2);
            rolled_back += usize::from(entries == 0 && stage == BEGUN);
        }
        assert!(made > 0 && rolled_back > INTERRUPTIONS / 20, "{made} made, {rolled_back} rolled back");
        pool.close().await;
    });
}
