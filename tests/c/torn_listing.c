/* To be preloaded: a directory is read so slowly that what comes into it meanwhile is seen in part.
 * While there is the file that TORN_LISTING names, the first that reads a directory renames it to
 * "...-begun", waits until that is gone, and does not see the name that was written in it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static DIR *torn;
static char hidden[256], begun[4096];

static void tear(DIR *entries) {
  const char *path = getenv("TORN_LISTING");
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return;
  hidden[fread(hidden, 1, sizeof hidden - 1, file)] = '\0';
  fclose(file);
  snprintf(begun, sizeof begun, "%s-begun", path);
  if (rename(path, begun) != 0) return;
  torn = entries;
  while (access(begun, F_OK) == 0) usleep(1000);
}

struct dirent *readdir(DIR *entries) {
  static struct dirent *(*next)(DIR *);
  if (!next) next = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir");
  int before = errno; /* the end is told from an error by it */
  if (entries != torn) tear(entries);
  errno = before;
  struct dirent *entry;
  do entry = next(entries);
  while (entry && entries == torn && strcmp(entry->d_name, hidden) == 0);
  return entry;
}

int closedir(DIR *entries) {
  static int (*end)(DIR *);
  if (!end) end = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
  if (entries == torn) torn = NULL;
  return end(entries);
}
