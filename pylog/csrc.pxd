# Declarations of csrc, header by header; no logic.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "pl_error.h" nogil:
    ctypedef int pl_status
    enum:
        PL_OK, PL_BUSY, PL_NOT_READY, PL_END
        PL_ERR_IO, PL_ERR_DISK_FULL, PL_ERR_CORRUPT, PL_ERR_FORMAT, PL_ERR_FILESYSTEM
        PL_ERR_ENVIRONMENT, PL_ERR_CODEC, PL_ERR_LIMIT, PL_ERR_READ_ONLY, PL_ERR_DURABILITY
        PL_ERR_TIMEOUT, PL_ERR_OUT_OF_RANGE, PL_ERR_WRONG_END, PL_ERR_NOT_FOUND, PL_ERR_TOO_LARGE
        PL_ERR_CLOSED, PL_ERR_FORKED, PL_ERR_CONFIG, PL_ERR_NO_MEMORY, PL_ERR_DENIED
        PL_ERR_DELETED
    ctypedef struct pl_error:
        pl_status status
        int os_errno
        int64_t position, offset, extra, bound
        char path[1024]
        char text[512]
    pl_error *pl_error_last()

cdef extern from "pl_file.h" nogil:
    const char *pl_filesystem_name(uint32_t magic)

cdef extern from "pl_bytes.h" nogil:
    ctypedef struct pl_word "_Atomic uint64_t":
        pass
    ctypedef struct pl_word32 "_Atomic uint32_t":
        pass
    ctypedef struct pl_slice:
        const uint8_t *data
        int64_t size
    uint64_t pl_zigzag(int64_t value)
    uint8_t *pl_put_varint(uint8_t *p, uint64_t zigzag)
    const uint8_t *pl_get_varint(const uint8_t *p, const uint8_t *end, int64_t *value)

cdef extern from "pl_crc32c.h" nogil:
    uint32_t pl_crc32c(const void *data, size_t size)
    const char *pl_crc32c_kernel()

cdef extern from "pl_hash.h" nogil:
    ctypedef enum pl_key_hash:
        PL_KEY_MURMUR2, PL_KEY_CRC32
    uint32_t pl_murmur2(const uint8_t *data, size_t size)
    uint32_t pl_crc32(const uint8_t *data, size_t size)
    int32_t pl_key_partition(const uint8_t *data, size_t size, pl_key_hash hash, int32_t count)

cdef extern from "pl_batch.h" nogil:
    enum:
        PL_BATCH_BASE_OFFSET, PL_BATCH_LENGTH, PL_BATCH_LEADER_EPOCH, PL_BATCH_MAGIC, PL_BATCH_CRC
        PL_BATCH_ATTRIBUTES, PL_BATCH_LAST_OFFSET_DELTA, PL_BATCH_BASE_TIMESTAMP
        PL_BATCH_MAX_TIMESTAMP, PL_BATCH_PRODUCER_ID, PL_BATCH_PRODUCER_EPOCH
        PL_BATCH_BASE_SEQUENCE, PL_BATCH_RECORDS_COUNT, PL_BATCH_HEADER_SIZE
        PL_ATTRIBUTE_CODEC_MASK, PL_ATTRIBUTE_APPEND_TIME, PL_ATTRIBUTE_TRANSACTIONAL
        PL_ATTRIBUTE_CONTROL, PL_CODEC_NONE
        PL_RECORD_OVERHEAD_MAX, PL_RECORD_SIZE_MIN
    ctypedef struct pl_identity:
        int64_t producer_id
        int32_t base_sequence
        int16_t producer_epoch
        uint16_t attributes
    ctypedef struct pl_header:
        int64_t base_offset, last_offset, base_timestamp, max_timestamp, producer_id
        uint64_t size
        int32_t leader_epoch, base_sequence, records_count
        int16_t producer_epoch
        uint16_t attributes
    ctypedef struct pl_columns:
        const pl_slice *values
        const pl_slice *keys
        const pl_slice *headers
        const int64_t *timestamps
        int64_t timestamp
        int64_t count
    ctypedef struct pl_record:
        int64_t offset, timestamp
        const uint8_t *batch
        const uint8_t *body
        int64_t body_size
    ctypedef struct pl_record_fields:
        pl_slice key, value
        const uint8_t *headers
        int64_t headers_size
    int64_t pl_alone_size(int64_t key, int64_t value, int64_t headers)
    uint64_t pl_record_size_bound(int64_t key, int64_t value, int64_t headers)
    uint64_t pl_batch_size_bound(const pl_columns *columns)
    uint64_t pl_batch_encode(uint8_t *batch, const pl_columns *columns, const pl_identity *identity)
    void pl_batch_seal(uint8_t *batch, uint64_t size, int64_t count, int64_t max_timestamp)
    void pl_batch_stamp(uint8_t *batch, int64_t base_offset, int32_t leader_epoch)
    bint pl_header_decode(const uint8_t *batch, uint64_t available, pl_header *header,
                          const char **why)
    bint pl_batch_crc_matches(const uint8_t *batch, uint64_t size)
    bint pl_record_split(const uint8_t *body, int64_t body_size, pl_record_fields *fields)
    bint pl_record_header_next(const uint8_t **p, const uint8_t *end, pl_slice *key,
                               pl_slice *value)
    const char *pl_records_verify(const uint8_t *payload, uint64_t size, const pl_header *header,
                                  int64_t *max_timestamp)

cdef extern from "pl_clock.h" nogil:
    int64_t pl_clock_ms()
    uint64_t pl_monotonic_ns()
    int64_t pl_monotonic_ms()
    void pl_sleep_ms(int ms)

cdef extern from "pl_file.h" nogil:
    void pl_describe_thread(int tid, char *out, size_t size)

cdef extern from "pl_meta.h" nogil:
    ctypedef struct pl_options:
        int64_t durability, segment_bytes, max_message_bytes, append_time, index_interval_bytes
        int64_t flush_interval_ms
    ctypedef struct pl_epoch:
        int64_t epoch, start_offset
    ctypedef struct pl_meta:
        uint64_t incarnation
        pl_options options
        int64_t log_start, clean_end, durable_end, reserved_end, epoch_count
        pl_epoch *epochs
    enum:
        PL_DURABILITY_OS, PL_DURABILITY_INTERVAL, PL_DURABILITY_FSYNC
    pl_status pl_meta_load(const char *directory, pl_meta *meta)

cdef extern from "pl_page.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pl_slot:
        pass
    enum:
        PL_LOG_LIVE, PL_LOG_POISONED, PL_LOG_DELETED, PL_PAGE_LAYOUT
    const uint64_t PL_PAGE_MAGIC
    const uint64_t PL_PAGE_BYTES
    ctypedef struct pl_page_identity:
        uint64_t magic, device, inode, incarnation, pid_namespace
        uint32_t layout, mutex_abi
        uint8_t *boot_id
    ctypedef struct pl_page:
        pl_page_identity identity
        int32_t poison_errno
        int64_t end_offset, sealed_offset, durable_offset, log_start, reserved_end, active_base
        int64_t retired_base
        uint64_t position, rolls, flushes, owner_deaths
        uint32_t state
        int32_t leader_epoch
        pl_slot append_lock
        pthread_mutex_t flush_lock
        pthread_mutex_t maintenance_lock
    bint pl_page_get_options(const pl_page *page, pl_options *out)
    int pl_lock_owner(const pthread_mutex_t *lock)
    int pl_slot_owner(const pl_slot *slot)

cdef extern from "pl_segment.h" nogil:
    ctypedef struct pl_segment:
        int64_t base_offset
        uint8_t *data
        char *path
    void pl_segment_acquire(pl_segment *segment)
    void pl_segment_release(pl_segment *segment)
    pl_status pl_segment_open(const char *directory, const char *name, int64_t base_offset,
                              uint64_t map_bytes, bint writable, uint64_t index_interval_bytes,
                              pl_segment **segment)
    int64_t pl_segment_count_valid(pl_segment *segment, uint64_t position)
    void pl_segment_forget_verified(pl_segment *segment)
    uint64_t pl_segment_verified_bytes(pl_segment *segment)

cdef extern from "pl_log.h" nogil:
    enum:
        PL_OPTION_UNSET
    ctypedef struct pl_recovered:
        int reason, is_lossy
        int64_t cut_offset, next_offset, cut_bytes, batches_beyond, cut_position
        char *path
        char *why
    ctypedef struct pl_bell:
        pl_word topics
    ctypedef struct pl_bells:
        pl_bell bell[64]
    pl_status pl_bells_open(const char *path, pl_bells **out, uint64_t *inode)
    ctypedef struct pl_log:
        pl_meta meta
        pl_page *page
        pl_bells *bells
        uint64_t bells_inode
        pl_options options
        unsigned fork_generation
        uint32_t is_closed
        bint is_private
        bint is_writable
        char *directory
        pl_recovered recovered
        uint64_t keeper_failures
    unsigned pl_forks
    pl_status pl_log_open(const char *directory, bint writable, const pl_options *wanted,
                          int wait_ms, pl_log **log)
    pl_status pl_log_close(pl_log *log)
    void pl_log_let_go(pl_log *log)
    void pl_log_free(pl_log *log)
    int64_t pl_log_end(const pl_log *log)
    int64_t pl_log_readable(const pl_log *log)
    pl_status pl_log_segment(pl_log *log, int64_t offset, pl_segment **segment, int64_t *next_base)
    pl_status pl_log_size_bytes(pl_log *log, uint64_t *total)
    pl_status pl_append(pl_log *log, int64_t timestamp, pl_slice key, pl_slice value,
                        pl_slice headers, int64_t if_end, int wait_ms, int64_t *offset)
    pl_status pl_append_run(pl_log *log, const pl_columns *columns, int64_t start, int wait_ms,
                            int64_t *done, int64_t *first_offset)
    pl_status pl_append_batch(pl_log *log, const uint8_t *batch, uint64_t size, int64_t count,
                              int64_t if_end, int wait_ms, int64_t *first_offset)
    pl_status pl_flush(pl_log *log, int64_t target, int wait_ms)
    pl_status pl_delete_before(pl_log *log, int64_t offset)
    pl_status pl_wait_readable(pl_log *log, int64_t offset, int wait_ms)
    pl_status pl_log_check_place(const pl_log *log)
    bint pl_log_is_deleted(const pl_log *log)
    pl_status pl_alter(pl_log *log, const pl_options *wanted, int wait_ms)
    pl_status pl_retire(pl_log *log)
    pl_status pl_roll(pl_log *log, int wait_ms)
    pl_status pl_learn_options(pl_log *log)
    bint pl_log_knows_options(const pl_log *log)
    pl_status pl_delete(const char *directory, const char *aside, int wait_ms)
    void pl_end_waits(pl_log *log)

cdef extern from "pl_wait.h" nogil:
    ctypedef struct pl_watched:
        const pl_word *word
        uint64_t seen
    bint pl_watched_look(pl_watched *watched)
    void pl_word_step(pl_word *word)
    ctypedef struct pl_wait:
        pl_log **logs
        const int64_t *offsets
        int log_count
        const pl_watched *watched
        int watched_count
        pl_bells *bells
        uint64_t bells_inode
        pl_word **maps
    pl_status pl_wait_any(const pl_wait *wait, int wait_ms, int *found)
    void pl_wait_wake_own(pl_bells *bells)

cdef extern from "pl_sentry.h" nogil:
    void pl_bells_close(pl_bells *bells)
    ctypedef struct pl_post:
        pl_wait wait
        int event_fd
        bint is_set
    pl_status pl_post_set(pl_post *post)
    void pl_post_withdraw(pl_post *post)
    void pl_post_ring(pl_post *post)

cdef extern from "pl_tick.h" nogil:
    const uint64_t pl_ticks
    void pl_tick_order()

cdef extern from "pl_reader.h" nogil:
    ctypedef struct pl_chunk:
        pl_segment *segment
        uint64_t position, record_position, end_position
        int64_t from_offset, next_offset, count
        int codec
    ctypedef struct pl_reader:
        int64_t base_offset, least_offset, batch_end, left
    void pl_reader_ahead(const pl_reader *reader, const uint8_t *record, int64_t size)
    ctypedef struct pl_column_arrays:
        int64_t *offsets
        int64_t *timestamps
        int64_t *value_positions
        int64_t *key_positions
        int32_t *value_sizes
        int32_t *key_sizes
        const uint8_t *origin
    void pl_reader_init(pl_reader *reader, const pl_chunk *chunk)
    void pl_reader_init_payload(pl_reader *reader, const pl_chunk *chunk, pl_slice payload)
    int64_t pl_reader_records(pl_reader *reader, pl_record *records, int64_t count)
    int64_t pl_reader_values(pl_reader *reader, pl_slice *values, int64_t count)
    int64_t pl_reader_columns(pl_reader *reader, pl_column_arrays *columns, int64_t count)

cdef extern from "pl_cursor.h" nogil:
    ctypedef struct pl_cursor:
        pl_log *log
        int64_t offset
        pl_segment *segment
    void pl_cursor_init(pl_cursor *cursor, pl_log *log, int64_t offset)
    void pl_cursor_seek(pl_cursor *cursor, int64_t offset)
    void pl_cursor_release(pl_cursor *cursor)
    pl_status pl_cursor_fetch(pl_cursor *cursor, int64_t max_records, int64_t max_bytes,
                              bint may_block, pl_chunk *chunk)
    pl_status pl_cursor_batch(pl_cursor *cursor, bint may_block, pl_chunk *chunk,
                              pl_header *header)
    pl_status pl_cursor_skip(pl_cursor *cursor)
    pl_status pl_chunk_finish(const pl_chunk *chunk, uint8_t *out)
    void pl_chunk_release(pl_chunk *chunk)
    pl_slice pl_chunk_payload(const pl_chunk *chunk)
    pl_status pl_offset_before_end(pl_log *log, int64_t count, int64_t *offset)
    pl_status pl_offset_for_time(pl_log *log, int64_t timestamp, int64_t *offset)

cdef extern from "pl_stamp.h" nogil:
    enum:
        PL_STAMP_MAGIC_AT, PL_STAMP_CRC, PL_STAMP_RUN, PL_STAMP_PRODUCER, PL_STAMP_INCARNATION
        PL_STAMP_FLAGS, PL_STAMP_SEQUENCE, PL_STAMP_TRANSACTION, PL_STAMP_INDEX, PL_STAMP_COUNT
        PL_STAMP_SENT, PL_STAMP_SIZE, PL_STAMP_TOMBSTONE
    ctypedef enum pl_stamp_found:
        PL_STAMP_GOOD, PL_STAMP_ABSENT, PL_STAMP_BAD
    ctypedef struct pl_stamp:
        uint64_t run, sequence, sent_ns
        uint32_t producer, transaction
        uint16_t incarnation, flags, index, count
    void pl_stamp_write(const pl_stamp *stamp, uint8_t *key, uint8_t *value, int64_t size)
    pl_stamp_found pl_stamp_read(pl_slice key, pl_slice value, pl_stamp *stamp, uint32_t *crc)

cdef extern from "pl_ledger.h" nogil:
    ctypedef enum pl_span_kind:
        PL_SPAN_FAILED, PL_SPAN_INDETERMINATE
    ctypedef struct pl_span:
        uint64_t start, end, kind
    ctypedef struct pl_ledger_file:
        uint32_t producer
        uint64_t run
        pl_word32 incarnation, pid, span_count
        pl_word sent, settled, next, records, rounds
        pl_span *spans
    ctypedef struct pl_ledger:
        pl_ledger_file *file
    pl_status pl_ledger_open(const char *path, uint64_t run, uint32_t producer, pl_ledger **out)
    void pl_ledger_close(pl_ledger *ledger)
    enum:
        PL_LEDGER_BYTES, PL_LEDGER_BYTES_MAX, PL_LEDGER_SPANS, PL_LEDGER_SPANS_MAX
        LEDGER_MAGIC "offsetof(pl_ledger_file, magic)"
        LEDGER_LAYOUT "offsetof(pl_ledger_file, layout)"
        LEDGER_PRODUCER "offsetof(pl_ledger_file, producer)"
        LEDGER_RUN "offsetof(pl_ledger_file, run)"
        LEDGER_INCARNATION "offsetof(pl_ledger_file, incarnation)"
        LEDGER_PID "offsetof(pl_ledger_file, pid)"
        LEDGER_SENT "offsetof(pl_ledger_file, sent)"
        LEDGER_SETTLED "offsetof(pl_ledger_file, settled)"
        LEDGER_NEXT "offsetof(pl_ledger_file, next)"
        LEDGER_RECORDS "offsetof(pl_ledger_file, records)"
        LEDGER_ROUNDS "offsetof(pl_ledger_file, rounds)"
        LEDGER_SPAN_COUNT "offsetof(pl_ledger_file, span_count)"
        LEDGER_SPANS_AT "offsetof(pl_ledger_file, spans)"
    pl_status pl_ledger_enter(pl_ledger *ledger, uint32_t *incarnation)
    uint64_t pl_ledger_begin(pl_ledger *ledger, uint64_t count)
    void pl_ledger_acknowledge(pl_ledger *ledger, uint64_t count)
    void pl_ledger_withdraw(pl_ledger *ledger)
    pl_status pl_ledger_doubt(pl_ledger *ledger, pl_span_kind kind)
    uint64_t pl_load_word "atomic_load" (pl_word *word)
    uint32_t pl_load_word32 "atomic_load" (pl_word32 *word)
    void pl_store_word "atomic_store" (pl_word *word, uint64_t value)

cdef extern from "pl_checker.h" nogil:
    enum:
        PL_FOUND_KINDS, PL_FOLD_RECORDS
    ctypedef struct pl_checker:
        pass
    ctypedef struct pl_finding:
        int64_t offset, expected, sequence, producer
        uint32_t kind, incarnation
    ctypedef struct pl_seen:
        uint64_t start, end
        int64_t offset, last_offset
    ctypedef struct pl_checker_figures:
        int64_t next_offset, records, batches, bytes, cuts
        uint64_t run, last_sent_ns, memory_bytes
        int32_t epoch
        uint32_t producers
        int64_t found[11]
    pl_checker *pl_checker_new(uint64_t run, int64_t next_offset)
    void pl_checker_free(pl_checker *checker)
    void pl_checker_share(pl_checker *checker, pl_word *folds, int64_t count)
    void pl_checker_seek(pl_checker *checker, int64_t offset)
    pl_status pl_checker_take_batch(pl_checker *checker, pl_slice batch, const pl_slice *records,
                                    bint is_resumed)
    pl_status pl_checker_take_record(pl_checker *checker, int64_t offset, pl_slice key,
                                     pl_slice value)
    void pl_checker_ask(const pl_checker *checker, pl_checker_figures *figures)
    int64_t pl_checker_findings(const pl_checker *checker, int kind, const pl_finding **out)
    int64_t pl_checker_seen(const pl_checker *checker, uint32_t producer, const pl_seen **out)

cdef extern from "pl_process.h" nogil:
    enum:
        PL_PROCESSES_MAX
    ctypedef struct pl_process_slot:
        pl_word nonce
        pl_word32 pid
    ctypedef struct pl_process_file:
        pl_word deaths
        pl_word32 used
        pl_process_slot slots[1000]
    ctypedef struct pl_processes:
        pl_process_file *file
        pl_bells *bells
        uint64_t bells_inode
        int slot
        uint64_t nonce
        unsigned fork_generation
    void pl_bells_ring_all(pl_bells *bells)
    uint32_t pl_bells_announce(pl_bells *bells, pl_word **maps, int count)
    bint pl_bells_sleep(pl_bells *bells, uint32_t seen, int timeout_ms)
    pl_status pl_processes_open(const char *path, const char *bells_path, pl_processes **out)
    void pl_processes_leave(pl_processes *processes)
    void pl_processes_close(pl_processes *processes)
    pl_status pl_processes_join(pl_processes *processes)
    bint pl_process_is_alive(const pl_processes *processes, int slot, uint64_t nonce)
    int64_t pl_process_silence_ms(const pl_processes *processes, int slot)
    void pl_processes_ask_beats(pl_processes *processes, uint32_t every_ms)

cdef extern from "pl_table.h" nogil:
    enum:
        PL_TABLE_NAME_MAX, PL_TABLE_TEXT_MAX
    ctypedef struct pl_entry:
        uint16_t text_size
        uint64_t sequence, incarnation
        int64_t offset, time_ms
        int32_t leader_epoch
        char text[320]
    ctypedef struct pl_owner:
        uint64_t id, nonce
        int32_t process
    ctypedef struct pl_table_slot:
        int32_t number
        uint32_t name_size
        char name[250]
    ctypedef struct pl_table_file:
        char name[250]
        pl_word generation, changes, commits
        pl_word32 slot_count
    enum:
        PL_TABLE_HEADER "sizeof(pl_table_file)"
        TABLE_NAME "offsetof(pl_table_file, name)"
        TABLE_GENERATION "offsetof(pl_table_file, generation)"
        TABLE_CHANGES "offsetof(pl_table_file, changes)"
        TABLE_COMMITS "offsetof(pl_table_file, commits)"
        TABLE_NEXT_OWNER "offsetof(pl_table_file, next_owner)"
        TABLE_LOCK "offsetof(pl_table_file, lock)"
        TABLE_SLOT_COUNT "offsetof(pl_table_file, slot_count)"
        TABLE_SIZE "offsetof(pl_table_file, size)"
        TABLE_DOCUMENTS "offsetof(pl_table_file, documents)"
        TABLE_EXTENTS "offsetof(pl_table_file, extents)"
        SLOT_LOCK "offsetof(pl_table_slot, lock)"
        SLOT_NUMBER "offsetof(pl_table_slot, number)"
        SLOT_OWNER "offsetof(pl_table_slot, owner)"
        SLOT_OWNER_NONCE "offsetof(pl_table_slot, owner_nonce)"
        SLOT_OWNER_PROCESS "offsetof(pl_table_slot, owner_process)"
        SLOT_NAME_SIZE "offsetof(pl_table_slot, name_size)"
        SLOT_CURRENT "offsetof(pl_table_slot, current)"
        SLOT_NAME "offsetof(pl_table_slot, name)"
        SLOT_NAME_CHECK "offsetof(pl_table_slot, name_check)"
        SLOT_ENTRIES "offsetof(pl_table_slot, entries)"
        ENTRY_CRC "offsetof(pl_entry, crc)"
        ENTRY_TEXT_SIZE "offsetof(pl_entry, text_size)"
        ENTRY_FLAGS "offsetof(pl_entry, flags)"
        ENTRY_SEQUENCE "offsetof(pl_entry, sequence)"
        ENTRY_OFFSET "offsetof(pl_entry, offset)"
        ENTRY_TIME "offsetof(pl_entry, time_ms)"
        ENTRY_INCARNATION "offsetof(pl_entry, incarnation)"
        ENTRY_LEADER_EPOCH "offsetof(pl_entry, leader_epoch)"
        ENTRY_TEXT "offsetof(pl_entry, text)"
    ctypedef struct pl_table:
        pl_table_file *file
        unsigned fork_generation
    pl_status pl_table_open(const char *path, const char *name, pl_table **out)
    void pl_table_let_go(pl_table *table)
    void pl_table_close(pl_table *table)
    pl_status pl_table_remove(pl_table *table)
    pl_status pl_table_read(pl_table *table, void *out, size_t capacity, size_t *size,
                            uint64_t *generation)
    pl_status pl_table_publish(pl_table *table, uint64_t generation, const void *data, size_t size,
                               int wait_ms)
    pl_status pl_table_find(pl_table *table, const char *name, size_t size, int32_t number,
                            bint make, int wait_ms, int *index)
    pl_table_slot *pl_table_at(pl_table *table, int index)
    uint64_t pl_table_new_owner(pl_table *table)
    pl_status pl_table_own(pl_table *table, int index, uint64_t was, const pl_owner *now,
                           uint64_t generation, int wait_ms)
    pl_status pl_table_commit(pl_table *table, int index, uint64_t owner, uint64_t generation,
                              pl_entry *entry, int wait_ms)
    pl_status pl_table_get(pl_table *table, int index, pl_entry *entry, pl_owner *owner,
                           int wait_ms)
    pl_status pl_table_forget(pl_table *table, int index, int wait_ms)
    pl_status pl_table_sync(pl_table *table)

cdef extern from "pl_lease.h" nogil:
    enum:
        PL_LEASES, PL_LEASE_BUCKETS, PL_LEASE_NAME_MAX
        PL_LEASES_AT "offsetof(pl_leases_file, leases)"
        PL_SETTLE_DONE, PL_SETTLE_REJECT, PL_SETTLE_GIVE_BACK, PL_SETTLE_RETURN, PL_SETTLE_RENEW
    ctypedef int pl_settlement
    ctypedef struct pl_lease_set:
        int64_t count
    ctypedef struct pl_leases_counts:
        int64_t done, rejected, given_back, expired, orphaned, taken
    ctypedef struct pl_leases_head:
        bint is_ordered, keeps_records
    ctypedef struct pl_leases_file:
        pl_leases_head head
        uint64_t first, last, deaths
        int64_t next_offset
        pl_word changes
        pl_lease_set ready
        pl_leases_counts counts
    ctypedef struct pl_leases:
        pl_leases_file *file
        pl_log *log
        unsigned fork_generation
        bint displaces
    ctypedef struct pl_grant:
        int64_t offset
        uint32_t index, token, deliveries
        int64_t due_ms
    ctypedef struct pl_leases_stats:
        int64_t start, next, ready, held, delayed, done, behind
        pl_leases_counts counts
    ctypedef struct pl_leases_terms:
        const char *name
        int64_t start
        int is_ordered
        bint keeps_records
    pl_status pl_leases_open(const char *path, const pl_leases_terms *terms, pl_log *log,
                             pl_processes *processes, pl_leases **out)
    void pl_leases_let_go(pl_leases *leases)
    void pl_leases_close(pl_leases *leases)
    pl_status pl_leases_remove(pl_leases *leases)
    pl_status pl_leases_sync(pl_leases *leases)
    pl_status pl_leases_take(pl_leases *leases, int64_t count, int64_t lock_ms, int wait_ms,
                             pl_grant *grants, int64_t *taken, uint64_t *changes)
    pl_status pl_leases_admit(pl_leases *leases, int64_t next, const int64_t *offsets,
                              const int32_t *buckets, int64_t count, int wait_ms,
                              int64_t *admitted)
    pl_status pl_leases_skip(pl_leases *leases, uint32_t index, uint32_t token, int64_t next,
                             int wait_ms)
    pl_status pl_leases_settle(pl_leases *leases, uint32_t index, uint32_t token,
                               pl_settlement how, int64_t ms, int wait_ms)
    pl_status pl_leases_peek(pl_leases *leases, uint32_t index, uint32_t token)
    pl_status pl_leases_listen(pl_leases *leases, uint64_t changes, const pl_word *word,
                               uint64_t seen, int wait_ms)
    void pl_leases_unlisten(pl_leases *leases)
    int64_t pl_leases_next_look(const pl_leases *leases)
    pl_status pl_leases_get_stats(pl_leases *leases, int wait_ms, pl_leases_stats *out)
    pl_status pl_leases_kept_from(const char *path, int64_t *start)
