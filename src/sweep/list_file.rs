//! The part of a sweep that goes by a listing file.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use tracing::{debug, warn};

use super::{
    ledger::Ledger,
    lines::{Bookmark, MAX_LIST_BYTES},
    pass::{Found, MAX_HEADS, Pass, Place, Trouble},
    storage::{Listed, Storage},
};
use crate::{
    object::ObjectRef,
    s3::{Failure, S3Error},
};

impl<S: Storage, L: Ledger> Pass<S, L> {
    /// Looks at the objects that the next lines of a listing file name.
    pub(super) async fn named(
        &mut self,
        list: &ObjectRef,
        prefix: &str,
        place: &Place,
    ) -> Result<Found, Trouble> {
        let mut bookmark = match place {
            Place::List(bookmark) => bookmark.clone(),
            Place::Start | Place::Listing(_) => self.open_list(list).await?,
        };
        let Some(range) = bookmark.block() else {
            return Ok(Found::default());
        };
        let read = self.storage.read(list, &bookmark.etag, range);
        let block = match self.or_stopped(read).await? {
            Ok(block) => block,
            Err(error) if error.failure == Failure::PreconditionFailed => {
                return Err(Trouble::ListChanged);
            }
            Err(error) => return Err(missing_list(error)),
        };
        let lines = bookmark.take_lines(&block).ok_or(Trouble::NoLines)?;
        let mut named = BTreeSet::new();
        let mut unreadable = Vec::new();
        let objects = lines
            .iter()
            .filter_map(|line| line.object(list.bucket(), prefix));
        for object in objects {
            match object {
                Ok(object) => drop(named.insert(object)),
                Err(reason) => unreadable.push(reason),
            }
        }
        let found = self.heads(named).await?;
        Ok(Found {
            candidates: self.sources(found),
            unreadable,
            next: bookmark.block().map(|_| Place::List(bookmark)),
        })
    }

    async fn open_list(&self, list: &ObjectRef) -> Result<Bookmark, Trouble> {
        let head = self.or_stopped(self.storage.head(list)).await?;
        let listed = head.map_err(missing_list)?.ok_or(Trouble::NoList)?;
        let size = listed
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0);
        if size > MAX_LIST_BYTES {
            return Err(Trouble::LongList(size));
        }
        Ok(Bookmark {
            etag: listed.etag,
            size,
            next_byte: 0,
            lines: 0,
        })
    }

    /// The objects that are there, of those that a listing file names. What no feed takes is not asked for.
    async fn heads(
        &mut self,
        named: BTreeSet<ObjectRef>,
    ) -> Result<Vec<(ObjectRef, Listed)>, Trouble> {
        let (taken, unmatched): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|object| self.plan.takes(object).is_some());
        self.counts.sources += unmatched.len() as u64;
        self.counts.unmatched += unmatched.len() as u64;
        let pass = &*self;
        let heads = stream::iter(taken).map(|object| async move {
            let head = pass.head(&object).await?;
            Ok::<_, S3Error>((object, head))
        });
        let heads = heads.buffer_unordered(MAX_HEADS).try_collect::<Vec<_>>();
        let mut found = Vec::new();
        let mut absent = Vec::new();
        for (object, head) in pass.or_stopped(heads).await?? {
            match head {
                Some(listed) => found.push((object, listed)),
                None => absent.push(object),
            }
        }
        if let Some(first) = absent.first() {
            let more = absent.len() - 1;
            warn!(object = %first, more, "a listing file names what is not there, or may not be looked at");
        }
        self.counts.absent += absent.len() as u64;
        Ok(found)
    }

    /// An object as it is now; `None` when it is not there, or when its server refuses to tell: without the permission to
    /// list a bucket, both are answered 403.
    async fn head(&self, object: &ObjectRef) -> Result<Option<Listed>, S3Error> {
        match self.look(object).await? {
            Head::There(listed) => Ok(Some(listed)),
            Head::Gone | Head::Untold => Ok(None),
        }
    }

    /// Looks at an object; an error when its server does not answer.
    pub(super) async fn look(&self, object: &ObjectRef) -> Result<Head, S3Error> {
        match self.storage.head(object).await {
            Ok(Some(listed)) => Ok(Head::There(listed)),
            Ok(None) => Ok(Head::Gone),
            Err(error) if error.failure == Failure::Unavailable => Err(error),
            Err(error) => {
                debug!(%object, %error, "the object can't be looked at");
                self.tally.failed(error.failure.code());
                Ok(Head::Untold)
            }
        }
    }
}

/// What a look at an object shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    There(Listed),
    Gone,
    /// The server refuses to say.
    Untold,
}

fn missing_list(error: S3Error) -> Trouble {
    match error.failure {
        Failure::NotFound => Trouble::NoList,
        _ => Trouble::S3(error),
    }
}
