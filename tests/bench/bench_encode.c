/* bench_encode.c - what a picture costs before the decoder sees it: tokens, time (also of processors, which says the same while
 * others work beside it), memory, by size; and the longest slice, which is what decode steps beside it wait for.
 *
 *   build/tests/bench/bench_encode [FOLDER] [--threads N] [--together N] [--rows N] [--plan] [WIDTHxHEIGHT ...]
 *
 * --plan: tiles and tokens alone. --together: so many pictures in one encode, times of all. --rows: of a slice
 * (backend_encode_rows), instead of what suits a CPU.
 * No folder: the bundled model. It may be one of random weights (tests/tools/random_checkpoint). One thread drives, as the engine's does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/model/model.h"

static void die(const char *what, const status *st) {
    fprintf(stderr, "bench_encode: %s: %s\n", what, st->msg);
    exit(1);
}

static double processor_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_plan(const model_spec *s, const prep_plan *p, int w, int h) {
    printf("%5d x %-5d %3d tile%s %6d tokens", w, h, p->n_tiles, p->n_tiles == 1 ? " " : "s",
           s->image_rows(s, p));
}

enum { MOST_TOGETHER = 64 };

static void bench(const model *m, backend *be, arena *scratch, int w, int h, int together, bool plan_only) {
    status st = {0};
    const model_spec *s = model_get_spec(m);
    tiles t = {0};
    if (!spec_plan_image(s, &(image_ask){w, h, 1}, &IMAGE_LIMITS_DEFAULT, &t.plan, &st)) die("plan", &st);
    if (t.plan.n_text) t.plan.n_text = 12; /* a question's */
    prep_plan plan = t.plan;
    print_plan(s, &plan, w, h);
    if (plan_only) {
        printf("\n");
        return;
    }
    image in = {w, h, mem_alloc((size_t)w * (size_t)h * 3)};
    if (!in.rgb) die("memory", &st);
    for (int i = 0; i < w * h * 3; i++) in.rgb[i] = (uint8_t)(i * 31);
    double from = time_now_s();
    if (!tiles_make(&plan, &in, &t, &st)) die("pixels", &st);
    double prepared = time_now_s() - from, longest = 0;
    t.text = mem_calloc((size_t)plan.n_text + 1, sizeof *t.text);
    ctx c = {.be = be, .scratch = scratch};
    const tiles *all[MOST_TOGETHER];
    encode *made[MOST_TOGETHER], *e;
    for (int i = 0; i < together; i++) all[i] = &t;
    if (!encode_new_many(m, be, all, together, made, &st)) die("encode", &st);
    e = made[0];
    from = time_now_s();
    double cpu = processor_s();
    for (bool done = false; !done;) {
        double begin = time_now_s();
        done = encode_run(&c, e, 1);
        ctx_sync(&c);
        if (!ctx_ok(&c)) die("encode", &c.st);
        if (time_now_s() - begin > longest) longest = time_now_s() - begin;
    }
    cpu = processor_s() - cpu;
    printf(" %8.2f s encode (%.2f s of processors; %d slices, longest %.0f ms), %.3f s pixels, %.0f MiB\n",
           time_now_s() - from, cpu, encode_slices(e), longest * 1e3, prepared,
           (double)encode_bytes(s, &plan) / (1 << 20));
    for (int i = 0; i < together; i++) encode_free(made[i]);
    tiles_fini(&t);
    image_fini(&in);
}

int main(int argc, char **argv) {
    status st = {0};
    int threads = 0, sizes = 0, together = 1, rows = 0;
    bool plan_only = false;
    const char *dir = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--together") == 0 && i + 1 < argc)
            together = atoi(argv[++i]);
        else if (strcmp(argv[i], "--rows") == 0 && i + 1 < argc)
            rows = atoi(argv[++i]);
        else if (strcmp(argv[i], "--plan") == 0)
            plan_only = true;
        else if (!dir)
            dir = argv[i];
    }
    if (!dir) dir = "models/vlmd-tiny";
    if (together < 1 || together > MOST_TOGETHER) {
        fprintf(stderr,
                "usage: bench_encode [FOLDER] [--threads N] [--together 1..%d] [--rows N] [--plan] "
                "[WIDTHxHEIGHT ...]\n",
                MOST_TOGETHER);
        return 2;
    }
    backend *be =
        backend_new(&(backend_options){.device = "cpu", .threads = threads, .encode_rows = rows}, &st);
    if (!be) die("backend", &st);
    model *m = model_load(dir, be, &st);
    if (!m) die("load", &st);
    arena scratch;
    if (!arena_init(&scratch, (size_t)1 << 30, &st)) die("memory", &st);
    printf("%s\n", backend_describe(be));
    for (int i = 1; i < argc; i++) {
        int w, h;
        if (sscanf(argv[i], "%dx%d", &w, &h) != 2 || argv[i] == dir) continue;
        bench(m, be, &scratch, w, h, together, plan_only);
        sizes++;
    }
    if (!sizes) bench(m, be, &scratch, 1024, 768, together, plan_only);
    arena_fini(&scratch);
    model_free(m);
    backend_free(be);
    return 0;
}
