/* What the drivers of tables put in them. */
#ifndef TABLES_H
#define TABLES_H

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "pl_table.h"

enum { NAMES = 40, DOCUMENT_MAX = 20000 };

static inline size_t document_of(uint64_t generation, uint64_t *out) {
  size_t words = (size_t)(generation * 0x9e3779b97f4a7c15u >> 40) % (DOCUMENT_MAX / 8) + 1;
  for (size_t i = 0; i < words; i++) out[i] = generation;
  return words * 8;
}

static inline void name_of(int i, char *out) { sprintf(out, "topic-%d", i); }

static inline void fill_entry(pl_entry *entry, int64_t offset) {
  *entry = (pl_entry){.offset = offset, .text_size = (uint16_t)(offset % PL_TABLE_TEXT_MAX)};
  memset(entry->text, (int)(offset & 0x7f), entry->text_size);
}

/* As after a reboot: the boot id of a file that nobody has open is another one. */
static inline void reboot(const char *path) {
  FILE *file = fopen(path, "r+b");
  if (!file) return;
  fseek(file, offsetof(pl_page_identity, boot_id), SEEK_SET);
  fputc('x', file);
  fclose(file);
}

#endif
