/* A disk that forgets what was not synced, under one process.
 *
 * Preloaded into a process that writes below POWER_LOSS_LIVE. POWER_LOSS_SHADOW holds what would be left
 * of that tree if the power went now: a file as it was at its last successful fsync or fdatasync, under a
 * name that an fsync of its directory has made durable. What is synced under a name that is not durable
 * yet waits in POWER_LOSS_PENDING; a directory that is synced takes its names from the live one, the
 * contents from there, and a file that was never synced is empty. Copies are renamed into place, so the
 * process may be killed at any moment.
 *
 * It does not model what a disk may do beyond that: sectors torn, and pages that reach the disk although
 * nobody asked.
 *
 * Two faults: POWER_LOSS_SPACE is the number of bytes that may be written below the live tree before
 * writes fail with ENOSPC; POWER_LOSS_SYNCS the number of syncs before they fail with EIO.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *live, *shadow, *pending;
static atomic_llong space = LLONG_MAX, syncs = LLONG_MAX;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

__attribute__((constructor)) static void start(void) {
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    live = getenv("POWER_LOSS_LIVE");
    shadow = getenv("POWER_LOSS_SHADOW");
    pending = getenv("POWER_LOSS_PENDING");
    if (getenv("POWER_LOSS_SPACE")) space = atoll(getenv("POWER_LOSS_SPACE"));
    if (getenv("POWER_LOSS_SYNCS")) syncs = atoll(getenv("POWER_LOSS_SYNCS"));
}

/* A shadow that cannot be kept would make the test lie. */
static void broken(const char *what, const char *path) {
    fprintf(stderr, "power_loss.c: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

/* The path below the live tree ("" is the tree itself), or NULL. */
static const char *below_live(const char *path) {
    size_t length = live ? strlen(live) : 0;
    if (!length || strncmp(path, live, length)) return NULL;
    if (path[length] == 0) return "";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *fd_below_live(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return below_live(path);
}

static void join(char out[PATH_MAX], const char *root, const char *relative) {
    if (snprintf(out, PATH_MAX, *relative ? "%s/%s" : "%s%s", root, relative) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        broken("join", relative);
    }
}

static int exists(const char *path) {
    struct stat found;
    return stat(path, &found) == 0;
}

static void make_parents(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (mkdir(path, 0700) && errno != EEXIST) broken("mkdir", path);
        *slash = '/';
    }
}

/* All of one file, whatever the offset of whoever has it open. */
static void copy(const char *from, char *to) {
    char temporary[PATH_MAX];
    join(temporary, pending, ".copying");
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 && errno == ENOENT) return; /* removed while it was open: nothing would be found */
    int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) broken("copy", from);
    ssize_t sent;
    while ((sent = sendfile(out, in, NULL, 1 << 30)) > 0) {}
    if (sent < 0) broken("copy", from);
    close(in);
    close(out);
    make_parents(to);
    if (real_rename(temporary, to)) broken("rename", to);
}

static void file_synced(const char *relative) {
    char from[PATH_MAX], durable[PATH_MAX], waiting[PATH_MAX];
    join(from, live, relative);
    join(durable, shadow, relative);
    join(waiting, pending, relative);
    copy(from, exists(durable) && !exists(waiting) ? durable : waiting);
}

static void directory_synced(const char *relative) {
    char directory[PATH_MAX], from[PATH_MAX], durable[PATH_MAX], waiting[PATH_MAX], name[PATH_MAX];
    join(durable, shadow, relative);
    if (!exists(durable)) return; /* its own name is not durable yet */
    struct dirent *entry;

    join(directory, live, relative);
    DIR *names = opendir(directory);
    if (!names) broken("opendir", directory);
    while ((entry = readdir(names))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        join(name, relative, entry->d_name);
        if (!*relative) strcpy(name, entry->d_name);
        join(from, live, name);
        join(durable, shadow, name);
        join(waiting, pending, name);
        struct stat found;
        if (stat(from, &found)) continue;
        if (S_ISDIR(found.st_mode)) {
            if (mkdir(durable, 0700) && errno != EEXIST) broken("mkdir", durable);
        } else if (exists(waiting)) {
            if (real_rename(waiting, durable)) broken("rename", durable);
        } else if (!exists(durable)) {
            int empty = open(durable, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            if (empty < 0) broken("create", durable);
            close(empty);
        }
    }
    closedir(names);

    join(directory, shadow, relative);
    names = opendir(directory);
    if (!names) broken("opendir", directory);
    while ((entry = readdir(names))) {
        if (entry->d_type != DT_REG) continue;
        join(name, relative, entry->d_name);
        if (!*relative) strcpy(name, entry->d_name);
        join(from, live, name);
        join(durable, shadow, name);
        if (!exists(from)) real_unlink(durable);
    }
    closedir(names);
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    const char *relative = fd_below_live(fd, path);
    if (!relative || !shadow) return real(fd);
    if (atomic_fetch_sub(&syncs, 1) <= 0) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&lock);
    /* The disk itself is not asked: what it would keep is what is copied here, and it would take longer. */
    struct stat found;
    if (fstat(fd, &found)) broken("fstat", path);
    if (S_ISDIR(found.st_mode)) directory_synced(relative);
    else file_synced(relative);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int done = real_rename(from, to);
    const char *a = below_live(from), *b = below_live(to);
    if (done == 0 && a && b && shadow) {
        char durable[PATH_MAX], old[PATH_MAX], new[PATH_MAX];
        join(durable, shadow, a);
        join(old, pending, a);
        join(new, pending, b);
        make_parents(new);
        if (exists(old)) real_rename(old, new);
        else if (exists(durable)) copy(durable, new);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = real_unlink(path);
    const char *relative = below_live(path);
    if (done == 0 && relative && shadow) {
        char waiting[PATH_MAX];
        join(waiting, pending, relative);
        real_unlink(waiting);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

/* Whether a write below the live tree still has room. */
static int has_room(int fd, size_t count) {
    char path[PATH_MAX];
    if (atomic_load(&space) == LLONG_MAX || !fd_below_live(fd, path)) return 1;
    if (atomic_fetch_sub(&space, (long long)count) >= (long long)count) return 1;
    atomic_store(&space, 0);
    errno = ENOSPC;
    return 0;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return has_room(fd, count) ? real_write(fd, bytes, count) : -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return has_room(fd, count) ? real_pwrite(fd, bytes, count, at) : -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    return has_room(fd, count) ? real_pwrite(fd, bytes, count, at) : -1;
}
