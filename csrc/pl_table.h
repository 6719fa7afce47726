/* A table: what the members of a group share. A file with a document, and a slot for each thing
 * that can be owned: a partition, with what was committed for it; a claim.
 *
 * The document (members and assignment; bytes to us) has two places, written in turn, and is
 * published by one word, the *generation*. It is changed by compare-and-swap: read it, work out the
 * next, publish that if the generation is still the one that was read. So nobody thinks while
 * holding a lock, and who is stopped or killed while thinking keeps nobody waiting.
 *
 * A slot's lock (pl_lock.h, the pending slot) is held for a few stores. A commit under it checks
 * owner and generation, fills the entry that is not in use, and flips one word; a death in between
 * leaves the old entry. Each entry has a CRC: after a reboot a new file is made out of those that
 * are whole, so a table needs no other store; it is as durable as it was synced.
 */
#ifndef PL_TABLE_H
#define PL_TABLE_H

#include "pl_shared.h"

enum {
  PL_TABLE_NAME_MAX = 249,
  PL_TABLE_TEXT_MAX = 320,
  PL_TABLE_EXTENTS = 12,
  PL_TABLE_FIRST_SLOTS = 16,
};

/* What was committed: the offset to read next, and the committer's note. */
typedef struct pl_entry {
  uint32_t crc; /* of all behind it */
  uint16_t text_size;
  uint16_t flags; /* 0 */
  uint64_t sequence; /* of the slot's entries; 0: none */
  int64_t offset;
  int64_t time_ms;
  uint64_t incarnation; /* of the log: a topic made anew under an old name begins anew */
  int32_t leader_epoch;
  char text[PL_TABLE_TEXT_MAX];
} pl_entry;

/* Who owns it: a number of the user's choice that is never used again, and its process. */
typedef struct pl_owner {
  uint64_t id; /* 0: nobody */
  uint64_t nonce;
  int32_t process;
} pl_owner;

typedef struct pl_table_slot {
  alignas(128) pl_slot lock;
  int32_t number;
  _Atomic uint64_t owner; /* pl_owner.id */
  uint64_t owner_nonce;
  int32_t owner_process;
  uint32_t name_size;
  _Atomic uint32_t current; /* which entry holds */
  char name[PL_TABLE_NAME_MAX + 1];
  uint16_t name_check; /* of name and number: the entries do not say whose they are */
  pl_entry entries[2];
} pl_table_slot;

typedef struct pl_document {
  uint64_t position, capacity, size;
  uint32_t crc;
} pl_document;

typedef struct pl_table_file {
  pl_page_identity identity;
  char name[PL_TABLE_NAME_MAX + 1];
  alignas(128) _Atomic uint64_t generation; /* its last bit says which document holds */
  _Atomic uint64_t changes;    /* of owners and documents: who waits for either looks here */
  _Atomic uint64_t commits;
  _Atomic uint64_t next_owner; /* ids to be given out */
  alignas(128) pl_slot lock;   /* of what follows */
  _Atomic uint32_t slot_count;
  uint64_t size;               /* bytes of the file in use */
  pl_document documents[2];
  uint64_t extents[PL_TABLE_EXTENTS]; /* positions of 16, 32, 64, ... slots; 0: not yet */
} pl_table_file;

typedef struct pl_table {
  pl_table_file *file;
  unsigned fork_generation;
  pl_shared shared;
} pl_table;

/* `name` is kept in the file, for its name on disk may be a shortened one. */
pl_status pl_table_open(const char *path, const char *name, pl_table **out);
/* As pl_shared_let_go. */
void pl_table_let_go(pl_table *self);
void pl_table_close(pl_table *self);
/* Removes the file, if nobody else has it open (PL_BUSY). The table is of no more use. */
pl_status pl_table_remove(pl_table *self);

/* Copies the document into `out`, which has room for `capacity` bytes; *size may be more, then come
 * again. PL_NOT_READY: it was changed meanwhile, come again. PL_ERR_CORRUPT: its CRC is wrong. */
pl_status pl_table_read(pl_table *self, void *out, size_t capacity, size_t *size,
                        uint64_t *generation);
/* The next generation, if it is still `generation`; else PL_END. */
pl_status pl_table_publish(pl_table *self, uint64_t generation, const void *bytes, size_t size,
                           int wait_ms);

/* The slot of `name` and `number`; -1 in *index when there is none and none is to be made. */
pl_status pl_table_find(pl_table *self, const char *name, size_t size, int32_t number, bool make,
                        int wait_ms, int *index);
pl_table_slot *pl_table_at(pl_table *self, int index);

static inline uint64_t pl_table_new_owner(pl_table *self) {
  return atomic_fetch_add(&self->file->next_owner, 1);
}
/* From owner `was` to `now` (nobody: id 0), if the generation is still `generation` (0: of no
 * account); else PL_END. */
pl_status pl_table_own(pl_table *self, int index, uint64_t was, const pl_owner *now,
                       uint64_t generation, int wait_ms);
/* As `own` says who may: PL_END when `owner` is not its owner, PL_NOT_READY when the generation is
 * another. Fills in time, sequence and CRC. */
pl_status pl_table_commit(pl_table *self, int index, uint64_t owner, uint64_t generation,
                          pl_entry *entry, int wait_ms);
/* What holds, copied; sequence 0: nothing was committed. */
pl_status pl_table_get(pl_table *self, int index, pl_entry *entry, pl_owner *owner, int wait_ms);
/* If nobody owns the slot (else PL_END): as if nothing had ever been committed. It keeps its name,
 * for others may remember its index. */
pl_status pl_table_forget(pl_table *self, int index, int wait_ms);
pl_status pl_table_sync(pl_table *self);

#endif
