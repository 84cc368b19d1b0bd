/* args.h - command line and config file through one table of options.
 *
 * A command is a row of text and a table of arg_def; every option names the field of a plain struct that it
 * fills. Defaults are text and go through the same setters as flags and config values, so that there is one
 * grammar. Threads: one. Memory: values point into argv, into the tables or into the parsed config, which
 * args_values owns. Tested by tests/server/test_args.c. */
#ifndef VLMD_SERVER_ARGS_H
#define VLMD_SERVER_ARGS_H

#include <jansson.h>

#include "kernels/base.h"

typedef struct arg_list {
    const char **v; /* mem_alloc'd array of borrowed strings */
    int n;
} arg_list;

typedef enum arg_type {
    ARG_FLAG,   /* bool; --name or --name=true|false */
    ARG_INT,    /* int */
    ARG_COUNT,  /* int64_t; 64M is 64 million */
    ARG_SIZE,   /* size_t; 64M is 64 * 2^20 */
    ARG_REAL,   /* double */
    ARG_STRING, /* const char * */
    ARG_LIST    /* arg_list; the option may be repeated */
} arg_type;

typedef struct arg_def {
    const char *name; /* as after "--" */
    arg_type type;
    size_t offset;     /* of the field in the options struct */
    const char *value; /* what help calls the value: "N" */
    const char *deflt; /* text, or NULL: the field stays zero */
    double min, max;   /* of numbers; both 0: any */
    const char *help;
    bool cli_only; /* not allowed in a config file */
} arg_def;

typedef struct arg_command {
    const char *name;
    const char *usage; /* "serve [OPTIONS] [MODEL_DIR]" */
    const char *about; /* one or two lines */
    const arg_def *defs;
    int n_defs;
    int min_pos, max_pos; /* how many arguments that are no options */
    const char *pos_name; /* what help and messages call them */
} arg_command;

typedef enum arg_result { ARGS_RUN, ARGS_HELP, ARGS_VERSION, ARGS_BAD } arg_result;

typedef struct arg_values {
    const char *pos[4];
    int n_pos;
    json_t *config;
    void *options; /* the struct given to args_parse */
} arg_values;

/* Fills *options (zeroed by the caller) from the defaults, the file that --config names (if the table has
 * that option) and argv[0..argc), which starts after the command's name. Flags win over the file. ARGS_BAD:
 * st says what is wrong in one line. args_fini may be called after any result. */
arg_result args_parse(const arg_command *cmd, int argc, char **argv, void *options, arg_values *out,
                      status *st);
void args_fini(const arg_command *cmd, arg_values *v);

/* Applies a config object to the options that `seen` (one bool per def, may be NULL) does not mark. Names may
 * be spelt with - or _; numbers may be JSON numbers or text such as "512M". Errors name the key. */
bool args_apply_config(const arg_command *cmd, const json_t *config, const bool *seen, void *options,
                       status *st);

/* Appends the help text of a command. */
void args_help(const arg_command *cmd, buf *out);

/* The candidate nearest to `name` by edit distance, or NULL when none is near enough to be meant. */
const char *args_nearest(const char *name, const char *const *candidates, int n);

/* "512M" with k, m, g, t (either case, optional "B" or "iB") and the unit 1000 or 1024. */
bool args_parse_number(const char *text, int unit, double *out);

#endif
