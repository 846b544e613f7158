/* Counts the guest instructions that qemu executes, exactly.
 *
 * A plugin for qemu-user's TCG, plugin interface version 1 (qemu 4.2 to 8.x accept it). For each translation block it asks
 * qemu to add the block's instruction count, inline, whenever the block is entered. At exit the total is written, as a
 * decimal line, to the file that the argument `out=FILE` names; after it, a line each, what had been executed at each of the
 * guest's getsid system calls: so a program marks where its iterations begin. Nothing else calls getsid.
 *
 * The interface is declared here rather than included: qemu's header is not packaged. A block that is left in its middle
 * (a fault) still counts whole; with several threads the inline addition may lose counts, so guests run with one.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

/* The part of qemu_info_t that is used is its version; the rest is read by nobody here. */
typedef struct qemu_info_t qemu_info_t;

typedef void (*tb_trans_callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*udata_callback)(qemu_plugin_id_t id, void *userdata);
typedef void (*syscall_callback)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_callback callback);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, enum qemu_plugin_op op, void *ptr, uint64_t imm);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_callback callback);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, udata_callback callback, void *userdata);

EXPORT int qemu_plugin_version = 1;

/* AArch64's number of getsid. */
#define GETSID 156
#define MOST_MARKS 4096

static uint64_t executed;
static uint64_t marks[MOST_MARKS];
static size_t marks_made;
static char out_path[4096];

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &executed, qemu_plugin_tb_n_insns(tb));
}

/* The block that ends in the call has been counted whole when it was entered. */
static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)vcpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == GETSID && marks_made < MOST_MARKS) {
        marks[marks_made++] = executed;
    }
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *userdata)
{
    (void)id;
    (void)userdata;
    FILE *file = fopen(out_path, "w");
    if (file == NULL) {
        perror(out_path);
        return;
    }
    fprintf(file, "%" PRIu64 "\n", executed);
    for (size_t i = 0; i < marks_made; i++) {
        fprintf(file, "%" PRIu64 "\n", marks[i]);
    }
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            snprintf(out_path, sizeof out_path, "%s", argv[i] + 4);
        }
    }
    if (out_path[0] == '\0') {
        fprintf(stderr, "tcg_count: the argument out=FILE is missing\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
    return 0;
}
