/* folder.h - a folder under /tmp that a test fills as a checkpoint's, one at a time. Header only; include after cmocka.h. */
#ifndef TESTS_TOOLS_FOLDER_H
#define TESTS_TOOLS_FOLDER_H

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base.h"

#define FOLDER static inline __attribute__((unused))

static char folder[] = "/tmp/vlmd-test-XXXXXX"; /* its path, once it is made */

FOLDER void folder_new(void) {
    strcpy(folder + sizeof folder - sizeof "XXXXXX", "XXXXXX");
    assert_non_null(mkdtemp(folder));
}

/* The path of a file in it; the last four are kept. */
FOLDER const char *folder_at(const char *name) {
    static char path[4][300];
    static int k;
    k = (k + 1) % 4;
    assert_true(snprintf(path[k], sizeof path[k], "%s/%s", folder, name) < (int)sizeof path[k]);
    return path[k];
}

FOLDER void folder_put_bytes(const char *name, const void *p, size_t n) {
    FILE *f = fopen(folder_at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
FOLDER void folder_put(const char *name, const char *text) {
    folder_put_bytes(name, text, strlen(text));
}
FOLDER void folder_put_json(const char *name, const json_t *j) {
    assert_int_equal(json_dump_file(j, folder_at(name), JSON_ENCODE_ANY), 0);
}

/* The file of that name in another folder. False: there is none. */
FOLDER bool folder_copy(const char *from, const char *name) {
    buf b = {0};
    status st = {0};
    char path[300];
    assert_true(snprintf(path, sizeof path, "%s/%s", from, name) < (int)sizeof path);
    if (!buf_read_file(&b, path, (size_t)1 << 30, &st)) {
        assert_int_equal(st.code, ST_NOT_FOUND);
        return false;
    }
    folder_put_bytes(name, b.data ? b.data : "", b.len);
    buf_fini(&b);
    return true;
}

FOLDER void folder_drop(const char *name) {
    assert_int_equal(unlink(folder_at(name)), 0);
}
FOLDER void folder_clear(void) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) folder_drop(e->d_name);
    closedir(d);
}
FOLDER void folder_free(void) {
    folder_clear();
    assert_int_equal(rmdir(folder), 0);
}

/* Of a group of tests. */
FOLDER int folder_set_up(void **state) {
    (void)state;
    folder_new();
    return 0;
}
FOLDER int folder_tear_down(void **state) {
    (void)state;
    folder_free();
    return 0;
}

#endif
