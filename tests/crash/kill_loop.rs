//! Writers, flushes, FLUSHDB, changes of policy; then kill -9, a restart, and a look at everything: again and again.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    dice::Dice,
    resp::{Answer, Connection},
    store::{Setup, StoreProcess},
};
use tokio::sync::RwLock;

use crate::{
    account::{Account, Checked, Op},
    writer::{Writer, now_ms},
};

/// Writers at once.
const WRITERS: u64 = 4;
/// For a flush round.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// How often each test kills; more with `SLUICE_CRASH_KILLS`.
pub(crate) fn kills() -> u64 {
    std::env::var("SLUICE_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// What a loop did.
#[derive(Default)]
struct Total {
    checked: Checked,
    pipelines_cut: u64,
    receipts: u64,
    /// Round of the last receipt.
    last_round: u64,
    flushdbs: u64,
    policies: u64,
    killed_while_starting: u64,
}

/// What a loop is like.
pub(crate) struct KillLoop<'s> {
    /// Settings of the store.
    pub(crate) settings: &'s [(&'s str, &'s str)],
    /// Change `sync` while it runs.
    pub(crate) switch_policy: bool,
    /// What the store promises: with a write-ahead log everything acknowledged; without, what a receipt covers.
    pub(crate) wal: bool,
}

impl KillLoop<'_> {
    /// Runs it, and prints what it did.
    pub(crate) async fn run(&self, name: &str) -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let setup = Setup::new(root.path().join("data"), self.settings)?;
        let writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
        let mut total = Total::default();
        let mut store = setup.start().await?;
        for kill in 0..kills() {
            let what = || format!("{name}, kill {kill}");
            let seed = name.bytes().fold(kill, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            self.until_killed(&store, &writers, kill, seed, &mut total).await.with_context(what)?;
            drop(store);
            store = restart(&setup, kill, &mut total).await.with_context(what)?;
            ensure!(store.info("clean_shutdown").await? == "no", "a kill is no clean shutdown");
            let recovered: u64 = store.info("recovered_round").await?.parse()?;
            ensure!(recovered >= total.last_round, "round {recovered} was recovered, there is a receipt of {}", total.last_round);
            self.check(&store, &writers, &mut total).await.with_context(what)?;
        }
        let Total { checked, .. } = total;
        println!(
            "{name}: {} kills ({} more while starting), {} operations acknowledged, {} receipts, {} FLUSHDB, {} changes of policy; \
             nothing promised was missing; {} unacknowledged operations were there ({} pipelines were cut){}",
            kills(),
            total.killed_while_starting,
            checked.acknowledged,
            total.receipts,
            total.flushdbs,
            total.policies,
            checked.unacknowledged_kept,
            total.pipelines_cut,
            if self.wal { String::new() } else { format!("; {} after the last receipt were not", checked.given_up) }
        );
        ensure!(checked.acknowledged > 0, "nothing was acknowledged: the test shows nothing");
        ensure!(self.wal || total.receipts > 0, "there was no receipt: the test shows nothing");
        Ok(())
    }

    /// Lets everything run until the store is killed.
    async fn until_killed(
        &self,
        store: &StoreProcess,
        writers: &[Writer],
        kill: u64,
        seed: u64,
        total: &mut Total,
    ) -> anyhow::Result<()> {
        let pause = RwLock::new(());
        let mut dice = Dice::new(seed);
        let life = Duration::from_millis(60 + dice.below(400));
        let writing = writers.iter().map(|writer| writer.clone().write(store, &pause, seed.wrapping_add(writer.number << 32)));
        let killer = async {
            tokio::time::sleep(life).await;
            store.kill()
        };
        let (written, disturbed, killed) = tokio::join!(
            futures::future::join_all(writing),
            self.disturb(store, writers, &pause, kill, &mut dice, total),
            killer
        );
        killed?;
        disturbed?;
        written.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(())
    }

    /// Flushes, FLUSHDB and changes of policy, until the store is gone.
    async fn disturb(
        &self,
        store: &StoreProcess,
        writers: &[Writer],
        pause: &RwLock<()>,
        kill: u64,
        dice: &mut Dice,
        total: &mut Total,
    ) -> anyhow::Result<()> {
        let Ok(mut connection) = Connection::open(&store.address()).await else { return Ok(()) };
        // Even a short loop has each of them.
        let mut first = Some(kill % 3);
        loop {
            tokio::time::sleep(Duration::from_millis(10 + dice.below(60))).await;
            match first.take().unwrap_or_else(|| dice.below(8)) {
                0 => {
                    // Alone: its place among the writers' operations is then known.
                    let _alone = pause.write().await;
                    writers.iter().for_each(|writer| writer.with_account(|account| account.send(Op::DeleteAll)));
                    let Ok(answer) = connection.ask(&["FLUSHDB"]).await else { return Ok(()) };
                    ensure!(answer == Answer::Simple("OK".into()), "FLUSHDB: {answer:?}");
                    // It is one synced write, whatever the mode: nothing from before may come back.
                    for writer in writers {
                        writer.with_account(|account| {
                            account.acknowledge();
                            account.promise_acknowledged();
                        });
                    }
                    total.flushdbs += 1;
                }
                1 | 2 if self.switch_policy => {
                    let policy = ["always", "everysec", "no"][dice.below(3) as usize];
                    let Ok(answer) = connection.ask(&["CONFIG", "SET", "sync", policy]).await else { return Ok(()) };
                    ensure!(answer == Answer::Simple("OK".into()), "CONFIG SET sync {policy}: {answer:?}");
                    total.policies += 1;
                }
                _ => {
                    let before: Vec<usize> =
                        writers.iter().map(|writer| writer.with_account(|account| account.acknowledged())).collect();
                    let Ok(mut admin) = store.admin().await else { return Ok(()) };
                    let Ok(receipt) = admin.flush(FLUSH_LIMIT).await else { return Ok(()) };
                    for (writer, count) in writers.iter().zip(before) {
                        writer.with_account(|account| account.promise(count));
                    }
                    total.last_round = receipt.round;
                    total.receipts += 1;
                }
            }
        }
    }

    async fn check(&self, store: &StoreProcess, writers: &[Writer], total: &mut Total) -> anyhow::Result<()> {
        let mut connection = Connection::open(&store.address()).await?;
        for writer in writers {
            let began = now_ms();
            let found = writer.read_back(&mut connection).await?;
            if self.wal {
                writer.with_account(Account::promise_acknowledged);
            }
            let checked = writer.with_account(|account| account.check(&found, began..=now_ms()));
            let checked = checked.map_err(anyhow::Error::msg).with_context(|| format!("writer {}", writer.number))?;
            total.checked.acknowledged += checked.acknowledged;
            total.checked.unacknowledged_kept += checked.unacknowledged_kept;
            total.checked.given_up += checked.given_up;
            total.pipelines_cut += u64::from(checked.unacknowledged_kept > 0);
        }
        Ok(())
    }
}

/// Starts it again; now and then it is killed while it starts, first.
async fn restart(setup: &Setup, kill: u64, total: &mut Total) -> anyhow::Result<StoreProcess> {
    if kill % 4 == 3 {
        let store = setup.spawn()?;
        tokio::time::sleep(Duration::from_millis(3 + kill * 7 % 60)).await;
        store.kill()?;
        total.killed_while_starting += 1;
    }
    setup.start().await
}

/// Writers until SIGTERM: everything acknowledged is there afterwards, and the next start says that the end was clean.
pub(crate) async fn until_terminated(directory: &Path, wal: &str) -> anyhow::Result<()> {
    let setup = Setup::new(directory, &[("wal", wal)])?;
    let store = setup.start().await?;
    let writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let pause = RwLock::new(());
    let writing = writers.iter().map(|writer| writer.clone().write(&store, &pause, writer.number));
    let ender = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The second one must not corrupt anything.
        store.signal("TERM")?;
        store.terminate().await
    };
    // A writer that is refused (TRYAGAIN) has met the shutdown: what was refused must not be there, what was acknowledged must.
    let (_, status) = tokio::join!(futures::future::join_all(writing), ender);
    ensure!(status?.code() == Some(0), "{}", store.log());
    let store = setup.start().await?;
    ensure!(store.info("clean_shutdown").await? == "yes", "{}", store.log());
    let (mut total, everything) = (Total::default(), KillLoop { settings: &[], switch_policy: false, wal: true });
    everything.check(&store, &writers, &mut total).await?;
    ensure!(total.checked.acknowledged > 0, "nothing was acknowledged: the test shows nothing");
    // The marker speaks of one shutdown only.
    store.kill()?;
    let store = setup.start().await?;
    ensure!(store.info("clean_shutdown").await? == "no", "{}", store.log());
    Ok(())
}
