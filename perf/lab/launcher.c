/* Starts one measured process and accounts for it: launcher REPORT TIMEOUT_MS PROGRAM ARGUMENT...
 *
 * Linux counts the memory of the process that a child was forked from into that child's peak (ru_maxrss). A driver with numpy in
 * it would give every child its own 100 MB, and a Python of the smallest kind still as much as an interpreter that does nothing.
 * This one has less than anything that is measured.
 *
 * REPORT receives one line of decimal numbers: exit status (negative: the signal), whether the timeout ended it, wall time, user time,
 * system time (ns), peak resident memory (KiB), and CLOCK_MONOTONIC just before the process was created (ns). The process gets
 * the launcher's standard streams and a process group of its own, so that what it starts in turn ends with it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t child;

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t timeval_ns(struct timeval value)
{
    return (int64_t)value.tv_sec * 1000000000 + (int64_t)value.tv_usec * 1000;
}

/* The driver died or was interrupted: nothing may be left running. */
static void on_signal(int signal)
{
    if (child > 0) {
        kill(-child, SIGKILL);
    }
    _exit(128 + signal);
}

static void fail(const char *what)
{
    fprintf(stderr, "launcher: %s: %s\n", what, strerror(errno));
    exit(125);
}

static void become_measured(char **argv)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    execv(argv[0], argv);
    fail(argv[0]);
}

/* Whether the process ended within the time; poll wakes at its end, so that nothing spins. */
static int ends_within(int milliseconds)
{
    int descriptor = (int)syscall(SYS_pidfd_open, child, 0);
    if (descriptor < 0) {
        fail("pidfd_open");
    }
    struct pollfd end = {.fd = descriptor, .events = POLLIN};
    int ready;
    do {
        ready = poll(&end, 1, milliseconds);
    } while (ready < 0 && errno == EINTR);
    close(descriptor);
    return ready > 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: launcher REPORT TIMEOUT_MS PROGRAM ARGUMENT...\n");
        return 125;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int64_t start = clock_ns();
    child = fork();
    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        become_measured(argv + 3);
    }
    int timed_out = !ends_within(atoi(argv[2]));
    if (timed_out) {
        kill(-child, SIGKILL);
        kill(child, SIGKILL);
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child) {
        fail("wait4");
    }
    int64_t wall = clock_ns() - start;
    FILE *report = fopen(argv[1], "w");
    if (report == NULL) {
        fail(argv[1]);
    }
    int code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    fprintf(report, "%d %d %" PRId64 " %" PRId64 " %" PRId64 " %ld %" PRId64 "\n", code, timed_out, wall, timeval_ns(usage.ru_utime),
            timeval_ns(usage.ru_stime), usage.ru_maxrss, start);
    return fclose(report) == 0 ? 0 : 125;
}
