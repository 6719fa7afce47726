"""Checker: one pass over records that check themselves (csrc/pl_checker.h)."""

FINDINGS = (
    "torn-batch", "corrupt-record", "foreign-record", "other-run", "zombie-write", "duplicate",
    "reordered", "offset-gap", "offset-backwards", "stale-epoch", "inconsistent-offset",
)
FOLD_RECORDS = PL_FOLD_RECORDS


@cython.final
cdef class Checker:
    """Takes batches, chunks or records in the order of their offsets, and keeps what is wrong.

    `run` 0 takes that of the first stamp; `next_offset` -1 any first offset. `folds`, a writable
    int64 buffer of zeros that all checkers of a log share, holds a hash for every 4,096 offsets,
    in turn: two that saw different records find out. Nothing is raised for what is found: see
    `figures`.

    Cost: 23 ns a record of 100 bytes; memory by producers and holes, not by records.
    """

    cdef pl_checker *c
    cdef object folds

    def __cinit__(self, run=0, next_offset=-1, folds=None):
        cdef int64_t[::1] shared
        self.c = pl_checker_new(run, next_offset)
        if self.c == NULL:
            raise MemoryError()
        if folds is not None:
            shared = folds
            self.folds = folds
            if shared.shape[0]:
                pl_checker_share(self.c, <pl_word *>&shared[0], shared.shape[0])

    def __dealloc__(self):
        pl_checker_free(self.c)

    def seek(self, offset):
        """The next record may stand at `offset` or, with -1, anywhere."""
        pl_checker_seek(self.c, offset)

    def take_batch(self, const uint8_t[::1] batch not None, is_resumed=False):
        """One whole batch, as `Log.batches` gives them.

        `is_resumed`: it may begin before the expected offset, with records that were checked.
        """
        cdef pl_slice whole, records
        cdef pl_slice *decompressed = NULL
        cdef int codec = 0
        whole.data = &batch[0] if batch.shape[0] else NULL
        whole.size = batch.shape[0]
        if whole.size > PL_BATCH_HEADER_SIZE:
            codec = batch[PL_BATCH_ATTRIBUTES + 1] & PL_ATTRIBUTE_CODEC_MASK
        plain = self.decompressed(codec, batch[PL_BATCH_HEADER_SIZE:]) if codec else None
        if plain is not None:
            take_bytes(plain, &records)
            decompressed = &records
        check(pl_checker_take_batch(self.c, whole, decompressed, is_resumed))

    cdef object decompressed(self, int codec, const uint8_t[::1] payload):
        """None: it cannot be, and that is a finding."""
        try:
            return compression.decompress(codec, payload, DECOMPRESSED_MAX)
        except errors.UnsupportedCodecError:
            return None

    def take_chunk(self, Chunk chunk not None):
        """All records of a chunk, decoded as for any reader. Returns how many."""
        cdef pl_reader reader
        cdef pl_record block[BLOCK]
        cdef int64_t got = BLOCK, i, taken = 0
        if chunk.c.segment == NULL:
            return 0
        chunk.start(&reader)
        while got:
            got = pl_reader_records(&reader, block, BLOCK)
            if got < 0:
                raise broken_record(&chunk.c)
            for i in range(got):
                self.take(&block[i])
            taken += got
        return taken

    cdef int take(self, pl_record *record) except -1:
        cdef pl_record_fields fields
        if not pl_record_split(record.body, record.body_size, &fields):
            raise errors.CorruptRecordError("a record does not parse", offset=record.offset)
        check(pl_checker_take_record(self.c, record.offset, fields.key, fields.value))
        return 0

    def take_record(self, offset, key, value):
        """One record, from whatever reader."""
        cdef pl_slice k, v
        key, value = to_bytes(key, "a key"), to_bytes(value, "a value")
        take_bytes(key, &k)
        take_bytes(value, &v)
        check(pl_checker_take_record(self.c, offset, k, v))

    cdef pl_checker_figures ask(self) noexcept:
        cdef pl_checker_figures figures
        pl_checker_ask(self.c, &figures)
        return figures

    @property
    def next_offset(self):
        """The offset to come; -1: any."""
        return self.ask().next_offset

    @property
    def records(self):
        """Records taken."""
        return self.ask().records

    @property
    def found_total(self):
        """Findings of all kinds."""
        cdef pl_checker_figures f = self.ask()
        cdef int64_t total = 0
        cdef int i
        for i in range(PL_FOUND_KINDS):
            total += f.found[i]
        return total

    def figures(self):
        """What was seen so far, as a dict; "found" maps each of FINDINGS to its count."""
        cdef pl_checker_figures f
        cdef int i
        pl_checker_ask(self.c, &f)
        return {
            "next_offset": f.next_offset, "records": f.records, "batches": f.batches,
            "bytes": f.bytes, "cuts": f.cuts, "run": f.run, "last_sent_ns": f.last_sent_ns,
            "epoch": f.epoch, "producers": f.producers, "memory_bytes": f.memory_bytes,
            "found": {name: f.found[i] for i, name in enumerate(FINDINGS)},
        }

    def findings(self, name):
        """The first sixteen of a kind, as dicts; -1 is unknown."""
        cdef const pl_finding *found
        cdef int64_t i, n = pl_checker_findings(self.c, FINDINGS.index(name), &found)
        return [{"offset": found[i].offset, "expected": found[i].expected,
                 "producer": found[i].producer, "sequence": found[i].sequence,
                 "incarnation": found[i].incarnation} for i in range(n)]

    def seen(self, producer):
        """The sequences of a producer that were seen: tuples (start, end, offset, last offset)."""
        cdef const pl_seen *seen
        cdef int64_t i, n = pl_checker_seen(self.c, producer, &seen)
        return [(seen[i].start, seen[i].end, seen[i].offset, seen[i].last_offset)
                for i in range(n)]
