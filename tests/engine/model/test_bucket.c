/* test_bucket.c - positions by fraction against the reference's float32 arithmetic (tests/golden/families/buckets.json):
 * every table up to 77 places, grids of its size, half of it, a few more and 7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/model/encode.h"

static void test_golden(void **state) {
    (void)state;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/families/buckets.json", 0, &e), *row;
    size_t i, crooked = 0;
    if (!all) fail_msg("%s", e.text);
    json_array_foreach(all, i, row) {
        int side = (int)json_integer_value(json_array_get(row, 0)), n = (int)json_array_size(row) - 1;
        bool straight = true;
        for (int k = 0; k < n; k++) {
            int want = (int)json_integer_value(json_array_get(row, (size_t)k + 1));
            if (bucket_of(k, n, side) != want)
                fail_msg("%d of %d in %d: expected %d, found %d", k, n, side, want, bucket_of(k, n, side));
            straight = straight && want == k;
        }
        crooked += n == side && !straight;
    }
    assert_true(crooked > 20); /* else the golden holds nothing of interest */
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
