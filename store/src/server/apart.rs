//! A transaction that cannot be one batch, because some of its commands are executed by futures.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{connection::Connection, stopped::End};
use crate::{
    blocked::TurnEnd,
    commands::{Context, Replies, begin_later, run_piece, transactions},
    protocol::ReplyWriter,
};

impl Connection {
    /// EXEC of what cannot be one batch: in pieces, with everybody else paused. It is not cut short: it would be half done.
    pub(super) async fn execute_apart(&mut self) -> Result<(), End> {
        let (node, client) = (self.node.clone(), self.session.client.clone());
        let alone = match node.clients.pause.alone(client.id, None).await {
            Ok(alone) => alone,
            Err(busy) => {
                transactions::forget(&mut self.session);
                let text = format!("EXECABORT Transaction discarded because of: {}", busy.text());
                self.refuse(&text);
                return Ok(());
            }
        };
        let engine = node.engine.clone();
        // Who looked before the pause began is still inside.
        let _ = tokio::task::spawn_blocking(move || engine.drain()).await;
        client.set_held(true);
        let outcome = self.execute_pieces().await;
        client.set_held(false);
        drop(alone);
        self.serve_ready();
        outcome
    }

    async fn execute_pieces(&mut self) -> Result<(), End> {
        let begin = self.out.len();
        let mut commands = VecDeque::new();
        let (taken, end) = self.in_turn(|cx, _| {
            cx.writer.borrow_mut().enter();
            transactions::take(cx)
        });
        match taken {
            Ok(None) => {}
            Ok(Some(transactions::Taken { transaction, .. })) => {
                self.reply().array(transaction.queued.len());
                commands.extend(transaction.queued);
            }
            Err(error) => self.reply().error(&error.to_string()),
        }
        self.settle(&end).await?;
        self.session.executing = true;
        let replies = std::mem::replace(&mut self.session.replies, Replies::Sent);
        while !commands.is_empty() {
            let ((), end) = self.in_turn(|cx, replies| {
                run_piece(cx, &mut commands, |mark, changed| replies.push((mark, changed)));
            });
            self.settle(&end).await?;
            // What is in front now is executed by a future.
            if let Some(request) = commands.pop_front() {
                match begin_later(&self.node, &self.session, &request) {
                    Ok(later) => self.answer_later(later, &request).await?,
                    Err(error) => self.reply().error(&error.to_string()),
                }
            }
        }
        self.session.executing = false;
        self.session.replies = replies;
        if self.session.replies.leaves_out() {
            self.out.truncate(begin);
        }
        Ok(())
    }

    /// Does something in a turn of the thread, behind what others have gathered in it.
    fn in_turn<R>(&mut self, work: impl FnOnce(&mut Context<'_, '_>, &mut Vec<(usize, bool)>) -> R) -> (R, Arc<TurnEnd>) {
        let (turns, node) = (self.turns.clone(), self.node.clone());
        let mut turn = turns.turn();
        if turn.writer.borrow().is_inside() {
            turns.commit(&mut turn);
        }
        let mut reply = ReplyWriter::new(&mut self.out, self.session.version, node.live.reply_len_max());
        let mut context = Context {
            node: &node,
            session: &mut self.session,
            reply: &mut reply,
            writer: &turn.writer,
            outbox: &turn.outbox,
            now_ms: node.engine.now_ms(),
            prefetch: None,
            clock: node.clients.slow.measures().then(Instant::now),
            moment: None,
        };
        let result = work(&mut context, &mut self.replies);
        (result, turns.leave(turn))
    }
}
