/* main.c - the program: picks the subcommand, prints what it says, and is the only place that exits.
 * Exit status: 0 done, 1 it failed (a message on stderr says why), 2 bad usage, 70 the device failed while it served. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "server/app.h"
#include "server/args.h"
#include "kernels/json.h"
#include "server/serve.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_LOST = 70 /* as sysexits.h has it */ };

static const char top_help[] =
    "usage: vlmd COMMAND ...\n"
    "\n"
    "commands:\n"
    "  serve [MODEL_DIR]        serve a model over the OpenAI chat API (vlmd serve --help)\n"
    "  tokenize TOKENIZER       text on stdin, token ids on stdout\n"
    "  render TEMPLATE          a JSON object of variables on stdin, the prompt on stdout\n"
    "  inspect MODEL_DIR        what vlmd understands of a checkpoint\n"
    "  families                 the families of models that vlmd knows, as a table\n"
    "  --help, --version\n";

static int failed(const char *command, const status *st) {
    fprintf(stderr, "vlmd %s: %s\n", command, st->msg[0] ? st->msg : "failed");
    return EXIT_FAILED;
}

/* What was printed may not have reached its file. */
static int finished(const char *command) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    fprintf(stderr, "vlmd %s: cannot write the output\n", command);
    return EXIT_FAILED;
}

/* Handles what is the same for every command. Returns true when the command is to run; else *code is the exit
 * status. */
static bool parsed(const arg_command *cmd, int argc, char **argv, void *options, arg_values *v, int *code) {
    status st = {0};
    switch (args_parse(cmd, argc, argv, options, v, &st)) {
    case ARGS_RUN: return true;
    case ARGS_VERSION: printf("vlmd " VLMD_VERSION "\n"); break;
    case ARGS_HELP: {
        buf b = {0};
        args_help(cmd, &b);
        fputs(b.data ? b.data : "", stdout);
        buf_fini(&b);
        break;
    }
    case ARGS_BAD:
        fprintf(stderr, "vlmd %s: %s\nusage: vlmd %s (see vlmd %s --help)\n", cmd->name, st.msg, cmd->usage,
                cmd->name);
        *code = EXIT_USAGE;
        return false;
    }
    *code = finished(cmd->name);
    return false;
}

static int run_serve(int argc, char **argv) {
    serve_options o = {0};
    arg_values v;
    int code = EXIT_DONE;
    if (parsed(&serve_command, argc, argv, &o, &v, &code)) {
        status st = {0};
        const char *dir = v.n_pos ? v.pos[0] : NULL;
        serve_result res = SERVE_FAILED;
        if (!serve_check(&o, dir, &st)) {
            failed("serve", &st);
            code = EXIT_USAGE;
        } else if ((res = serve_run(&o, dir, &st)) == SERVE_FAILED) {
            code = failed("serve", &st);
        }
        if (res == SERVE_LOADING || res == SERVE_LOST) {
            fflush(stdout);
            _exit(res == SERVE_LOST ? EXIT_LOST : EXIT_DONE);
        }
    }
    args_fini(&serve_command, &v);
    return code;
}

typedef struct tool_options {
    bool no_special, json_lines, decode;
} tool_options;

static const arg_def tokenize_defs[] = {
    {"no-special", ARG_FLAG, offsetof(tool_options, no_special), NULL, NULL, 0, 0,
     "add no special tokens around the text", false},
    {"json-lines", ARG_FLAG, offsetof(tool_options, json_lines), NULL, NULL, 0, 0,
     "each line is a JSON string, each answer a JSON list of ids", false},
    {"decode", ARG_FLAG, offsetof(tool_options, decode), NULL, NULL, 0, 0,
     "the reverse: ids to text, special tokens kept", false},
};
static const arg_command tokenize_command = {
    .name = "tokenize",
    .usage = "tokenize [--no-special] [--json-lines] [--decode] TOKENIZER_JSON_OR_DIR",
    .about = "Text on stdin, token ids on stdout.",
    .defs = tokenize_defs,
    .n_defs = ARRAY_LEN(tokenize_defs),
    .min_pos = 1,
    .max_pos = 1,
    .pos_name = "TOKENIZER_JSON_OR_DIR",
};
static const arg_command render_command = {
    .name = "render",
    .usage = "render TEMPLATE_FILE_OR_DIR",
    .about = "A JSON object of variables on stdin (messages, add_generation_prompt, bos_token, ...), the "
             "rendered prompt\n"
             "on stdout, byte for byte.",
    .min_pos = 1,
    .max_pos = 1,
    .pos_name = "TEMPLATE_FILE_OR_DIR",
};
static const arg_command inspect_command = {
    .name = "inspect",
    .usage = "inspect MODEL_DIR",
    .about =
        "The architecture as vlmd understands it, tensors, what is ignored, memory, tokens of a picture.",
    .min_pos = 1,
    .max_pos = 1,
    .pos_name = "MODEL_DIR",
};

static const arg_command families_command = {
    .name = "families",
    .usage = "families",
    .about = "The families of models that vlmd knows, as a table in Markdown.",
};

static int run_tool(const arg_command *cmd, int argc, char **argv) {
    tool_options o = {0};
    arg_values v;
    int code = EXIT_DONE;
    if (parsed(cmd, argc, argv, &o, &v, &code)) {
        status st = {0};
        bool ok;
        if (o.decode && !o.json_lines) {
            fprintf(stderr, "vlmd tokenize: --decode goes with --json-lines (an array of ids a line)\n");
            args_fini(cmd, &v);
            return EXIT_USAGE;
        }
        if (cmd == &tokenize_command) {
            tool_tokenize_opts t = {v.pos[0], o.no_special, o.json_lines, o.decode};
            ok = tool_tokenize(&t, stdin, stdout, &st);
        } else if (cmd == &render_command) {
            ok = tool_render(v.pos[0], stdin, stdout, &st);
        } else if (cmd == &families_command) {
            ok = tool_families(stdout, &st);
        } else {
            ok = tool_inspect(v.pos[0], stdout, &st);
        }
        code = ok ? finished(cmd->name) : (fflush(stdout), failed(cmd->name, &st));
    }
    args_fini(cmd, &v);
    return code;
}

static int run_unknown(const char *name) {
    static const char *const names[] = {"serve",    "tokenize", "render",   "inspect",
                                        "families", "--help",   "--version"};
    const char *near = args_nearest(name, names, ARRAY_LEN(names));
    fprintf(stderr, "vlmd: unknown command \"%.60s\"%s%s%s\nusage: vlmd COMMAND ... (see vlmd --help)\n",
            name, near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    json_init();
    static const arg_command *const tools[] = {&tokenize_command, &render_command, &inspect_command,
                                               &families_command};
    if (argc < 2) {
        fprintf(stderr, "vlmd: no command given\nusage: vlmd COMMAND ... (see vlmd --help)\n");
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        fputs(top_help, stdout);
        return finished("help");
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("vlmd " VLMD_VERSION "\n");
        return finished("version");
    }
    if (strcmp(name, "serve") == 0) return run_serve(argc - 2, argv + 2);
    for (size_t i = 0; i < ARRAY_LEN(tools); i++)
        if (strcmp(name, tools[i]->name) == 0) return run_tool(tools[i], argc - 2, argv + 2);
    return run_unknown(name);
}
